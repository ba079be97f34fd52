"""Activation checkpointing: intermediate results are not kept; the backward sweep recomputes them, piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tinygrad_chat.autograd.mode import current_mode, no_grad, within
from tinygrad_chat.autograd.sweep import ArrayNode, PendingGradient, backpropagate_arrays
from tinygrad_chat.autograd.value import Node


def recomputed(function: Callable[..., ArrayNode], inputs: Sequence[ArrayNode], weights: Sequence[ArrayNode]) -> Any:
    """Return `function(*inputs)` as one node, which keeps its inputs but no intermediate results.

    `weights` are all other leaves that the function uses. It must be deterministic: then value and gradients equal
    those of the plain call bit for bit, at the cost of one more forward pass (Chen et al., arXiv:1604.06174).
    """
    mode = current_mode()
    if not mode.recording:
        return function(*inputs)
    with no_grad():
        out = function(*inputs)

    def backward(d_out: Any) -> list[Any]:
        leaves = [type(each)(each.data) for each in inputs]
        gradients: dict[Node, Any] = {}

        def collect(leaf: Node, gradient: Any) -> None:
            if leaf in gradients:
                gradient = _computed(gradients[leaf]) + _computed(gradient)
            gradients[leaf] = gradient

        with within(mode):
            again = function(*leaves)
        backpropagate_arrays(again, d_out, release=True, deliver=collect)
        return [gradients.get(each) for each in (*leaves, *weights)]

    return type(out)(out.data, (*inputs, *weights), backward, "recomputed")


def _computed(gradient: Any) -> Any:
    return gradient.array() if isinstance(gradient, PendingGradient) else gradient
