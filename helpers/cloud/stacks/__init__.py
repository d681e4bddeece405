"""CloudFormation's engine: it reads templates, and makes what they say through the cloud's API."""
