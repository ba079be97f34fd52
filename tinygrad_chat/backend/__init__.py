"""WHAT MEMORY: arrays and the devices they live on. Nothing here knows about gradients.

A `Backend` is an array library (`xp`: numpy or cupy) with a way to copy data in and out of its memory. A `Compute` is
the choice of back end, kernels and precision that a model is built with.
"""

from tinygrad_chat.backend.base import Backend
from tinygrad_chat.backend.captured_by_kind import EAGER_STEPS, CapturedByKind
from tinygrad_chat.backend.compute import Compute, default_compute
from tinygrad_chat.backend.graph_capture import GraphCapture
from tinygrad_chat.backend.host_memory import available_memory
from tinygrad_chat.backend.inbox import BUFFERS, Inbox, Packet, Slot
from tinygrad_chat.backend.product_choices import ProductChoices
from tinygrad_chat.backend.registry import (
    Kernels,
    array_module,
    backend_of,
    get_backend,
    in_native_order,
    load_kernels,
    to_host,
)
from tinygrad_chat.backend.whole_numbers import narrowed

__all__ = [
    "BUFFERS",
    "EAGER_STEPS",
    "Backend",
    "CapturedByKind",
    "Compute",
    "GraphCapture",
    "Inbox",
    "Kernels",
    "Packet",
    "ProductChoices",
    "Slot",
    "array_module",
    "available_memory",
    "backend_of",
    "default_compute",
    "get_backend",
    "in_native_order",
    "load_kernels",
    "narrowed",
    "to_host",
]
