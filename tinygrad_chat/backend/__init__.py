"""WHAT MEMORY: arrays and the devices they live on. Nothing here knows of gradients.

A `Backend` is an array library (`xp`: numpy or cupy), a way in and out of its memory and a table of fast kernels.
"""

from tinygrad_chat.backend.base import Backend, Kernels, array_module, backend_of, get_backend, load_kernels, to_host

__all__ = ["Backend", "Kernels", "array_module", "backend_of", "get_backend", "load_kernels", "to_host"]
