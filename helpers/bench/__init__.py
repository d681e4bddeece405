"""The same work, by the same program, in a process, in containers and in a virtual machine."""

from helpers.bench.build import BenchError, binary
from helpers.bench.measure import (
    PLACES,
    ROWS,
    SERVERS,
    compare,
    density,
    http,
    memory_per_instance,
    published,
    starts,
    summary,
)

__all__ = [
    "PLACES",
    "ROWS",
    "SERVERS",
    "BenchError",
    "binary",
    "compare",
    "density",
    "http",
    "memory_per_instance",
    "published",
    "starts",
    "summary",
]
