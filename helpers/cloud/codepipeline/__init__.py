"""CodePipeline: what pipelines consist of; ``services/codepipeline.py`` has the operations."""
