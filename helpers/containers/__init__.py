"""Containers: a Docker Engine that always answers, base images, a container from scratch."""

from helpers.containers.daemon import Engine, engine, label, prefix, running
from helpers.containers.engine_vm import EngineError, extend, snapshot
from helpers.containers.images import ImageError, image
from helpers.containers.registries import Registry, RegistryError, registry
from helpers.containers.scratch import Place, place, release

__all__ = [
    "Engine",
    "EngineError",
    "ImageError",
    "Place",
    "Registry",
    "RegistryError",
    "engine",
    "extend",
    "image",
    "label",
    "place",
    "prefix",
    "registry",
    "release",
    "running",
    "snapshot",
]
