"""The backward pass, replayed one node at a time without changing the graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygrad_chat.autograd import Node
from tinygrad_chat.autograd.sweep import rule_of
from tinygrad_chat.drawing.graph import drawn_parents, nodes_below, was_swept
from tinygrad_chat.errors import UsageError


@dataclass(frozen=True)
class Flow:
    """A gradient sent to a parent, and the parent's sum once it is accumulated."""

    parent: int
    operand: int
    """The parent's index among the node's drawn parents."""
    gradient: Any
    total: Any


@dataclass(frozen=True)
class Step:
    """A node's turn: its gradient is complete, and its rule sends one to each parent. A leaf sends none; its turn only
    shows what it has received."""

    number: int
    gradient: Any
    flows: tuple[Flow, ...]


def replay(root: Node) -> list[Step]:
    """Return what `backpropagate` does from `root`, in its order: youngest first. Numbers are those of `describe`.

    It starts with the gradient that an earlier backward pass left in `root`, else with 1. Raises UsageError as
    `nodes_below` does, and if `root` is an array of several elements without a gradient.
    """
    nodes = nodes_below(root)
    number = {node.birth: position for position, node in enumerate(nodes, 1)}
    arrived = {root.birth: root.grad if was_swept(root) else _one(root)}
    steps = []
    for node in reversed(nodes):
        if node.birth not in arrived:  # no gradient reaches it
            continue
        d_out = arrived[node.birth]
        sent = rule_of(node)(d_out) if node.parents else ()
        drawn = [gradient for parent, gradient in zip(node.parents, sent, strict=False) if parent is not None]
        flows = []
        for operand, (parent, gradient) in enumerate(zip(drawn_parents(node), drawn, strict=False)):
            if gradient is None:
                continue
            before = arrived.get(parent.birth)
            arrived[parent.birth] = gradient if before is None else before + gradient
            flows.append(Flow(number[parent.birth], operand, gradient, arrived[parent.birth]))
        steps.append(Step(number[node.birth], d_out, tuple(flows)))
    return steps


def _one(root: Any) -> Any:
    if not hasattr(root.data, "ndim"):
        return 1.0
    if root.data.size != 1:
        raise UsageError(
            f"graph: expected a scalar result, received shape {root.data.shape}; call backward(seed) first"
        )
    return np.ones_like(root.data)
