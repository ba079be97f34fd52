"""WHY GRADIENTS: graphs and their one reverse sweep. Nothing here knows an op or a Tensor.

Read value.py first, then sweep.py, differentiable.py and check.py.
"""

from tinygrad_chat.autograd.differentiable import (
    Operation,
    differentiable,
    find_kernel,
    has_kernel,
    kernels_of,
    no_grad,
    recording,
    reference_ops,
    watched_ops,
)
from tinygrad_chat.autograd.sweep import ArrayNode, PendingGradient, backpropagate_arrays
from tinygrad_chat.autograd.value import Node, Value, backpropagate

__all__ = [
    "ArrayNode",
    "Node",
    "Operation",
    "PendingGradient",
    "Value",
    "backpropagate",
    "backpropagate_arrays",
    "differentiable",
    "find_kernel",
    "has_kernel",
    "kernels_of",
    "no_grad",
    "recording",
    "reference_ops",
    "watched_ops",
]
