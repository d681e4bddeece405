"""One build of CodeBuild: a container that runs the commands of a buildspec, as its role."""
