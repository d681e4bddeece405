"""ECR: the registry behind it, and what lifecycle policies mean."""
