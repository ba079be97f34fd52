"""WHAT MEMORY: arrays and the devices they live on. Nothing here knows of gradients.

A `Backend` is an array library (`xp`: numpy or cupy) and a way in and out of its memory. A `Compute` is a choice of a
back end, of its kernels and of a precision, which a model is built with.
"""

from tinygrad_chat.backend.base import Backend
from tinygrad_chat.backend.compute import Compute, default_compute
from tinygrad_chat.backend.host_memory import available_memory
from tinygrad_chat.backend.registry import (
    Kernels,
    array_module,
    backend_of,
    get_backend,
    in_native_order,
    load_kernels,
    to_host,
)

__all__ = [
    "Backend",
    "Compute",
    "Kernels",
    "array_module",
    "available_memory",
    "backend_of",
    "default_compute",
    "get_backend",
    "in_native_order",
    "load_kernels",
    "to_host",
]
