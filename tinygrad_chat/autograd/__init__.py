"""WHY GRADIENTS: graphs and their one reverse sweep. Nothing here knows an op or a Tensor.

Read value.py first, then differentiable.py, then check.py.
"""

from tinygrad_chat.autograd.differentiable import (
    Operation,
    differentiable,
    find_kernel,
    has_kernel,
    kernels_of,
    no_grad,
    op_name,
    recording,
    reference_ops,
    watched_ops,
)
from tinygrad_chat.autograd.value import Node, PendingGradient, Value, backpropagate

__all__ = [
    "Node",
    "Operation",
    "PendingGradient",
    "Value",
    "backpropagate",
    "differentiable",
    "find_kernel",
    "has_kernel",
    "kernels_of",
    "no_grad",
    "op_name",
    "recording",
    "reference_ops",
    "watched_ops",
]
