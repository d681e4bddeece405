"""Containers: a Docker Engine that always answers, base images, a container from scratch."""

from helpers.containers.daemon import Engine, engine, label
from helpers.containers.engine_vm import EngineError, snapshot
from helpers.containers.images import ImageError, image

__all__ = ["Engine", "EngineError", "ImageError", "engine", "image", "label", "snapshot"]
