"""WHY GRADIENTS: computation graphs and the backward sweep over them. Nothing here knows about ops or Tensors.

Read value.py first, then sweep.py, differentiable.py and mode.py, then check.py.
"""

from tinygrad_chat.autograd.differentiable import Operation, differentiable
from tinygrad_chat.autograd.mode import (
    choosing_products,
    compute_for,
    computing_with,
    current_mode,
    find_kernel,
    has_kernel,
    kernels_of,
    no_grad,
    recording,
    reference_ops,
    watched_ops,
    with_own_compute,
)
from tinygrad_chat.autograd.recompute import recomputed
from tinygrad_chat.autograd.sweep import ArrayNode, PendingGradient, Unshared, backpropagate_arrays, may_overwrite
from tinygrad_chat.autograd.value import Node, Value, backpropagate

__all__ = [
    "ArrayNode",
    "Node",
    "Operation",
    "PendingGradient",
    "Unshared",
    "Value",
    "backpropagate",
    "backpropagate_arrays",
    "choosing_products",
    "compute_for",
    "computing_with",
    "current_mode",
    "differentiable",
    "find_kernel",
    "has_kernel",
    "kernels_of",
    "may_overwrite",
    "no_grad",
    "recomputed",
    "recording",
    "reference_ops",
    "watched_ops",
    "with_own_compute",
]
