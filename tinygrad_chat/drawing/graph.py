"""What a picture shows of a graph: one record of plain text per node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygrad_chat.autograd import Node, Value
from tinygrad_chat.autograd.sweep import RELEASED
from tinygrad_chat.backend import to_host
from tinygrad_chat.errors import UsageError

MAX_NODES = 400
"""A picture with more boxes is unreadable."""

LEAF, CONSTANT = "leaf", "constant"

_WORDS = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide", "**": "power"}


@dataclass(frozen=True)
class Record:
    """A node as it is drawn. Numbers count from 1 in order of birth, so a node's is larger than its parents'."""

    number: int
    kind: str
    """LEAF, CONSTANT (a plain number used with Values) or the op's name: `*` of a Value, `softmax` of a Tensor."""
    label: str
    shape: str
    """Empty for Values."""
    value: str
    gradient: str
    """Empty if no backward pass has reached it."""
    parents: tuple[int, ...]
    local_gradients: tuple[str, ...] = ()
    """Of a Value: its derivative with respect to each parent."""

    @property
    def name(self) -> str:
        """The node's name in a sentence."""
        if self.label or self.kind == CONSTANT:
            return self.label or self.value
        word = "negative" if self.kind == "-" and len(self.parents) == 1 else _WORDS.get(self.kind, self.kind)
        return f"{word} {self.number}"


def nodes_below(root: Node) -> list[Node]:
    """Return `root` and everything it was computed from, oldest first.

    Raises UsageError for more than MAX_NODES, and for a graph that a backward pass has released.
    """
    found = {root.birth: root}
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if node.parents is RELEASED:
            raise UsageError("graph: an earlier backward() released it; pass keep_graph=True to that backward()")
        for parent in drawn_parents(node):
            if parent.birth not in found:
                found[parent.birth] = parent
                waiting.append(parent)
    if len(found) > MAX_NODES:
        raise UsageError(f"graph: expected at most {MAX_NODES} nodes, this has {len(found):,}; draw a smaller part")
    return [found[birth] for birth in sorted(found)]


def drawn_parents(node: Node) -> list[Node]:
    """Return the parents that are nodes, leaving out bare arrays and numbers."""
    return [parent for parent in node.parents if parent is not None]


def describe(root: Node, names: Mapping[int, str] | None = None) -> list[Record]:
    """Return a record of each node below `root`, oldest first.

    `names` labels nodes by their `birth`; Values have their own labels. Raises UsageError as `nodes_below` does.
    """
    nodes = nodes_below(root)
    number = {node.birth: position for position, node in enumerate(nodes, 1)}
    show_gradients = was_swept(root)
    return [
        Record(
            number=number[node.birth],
            kind=_kind(node),
            label=(names or {}).get(node.birth, "") or str(getattr(node, "label", "")),
            shape="" if isinstance(node, Value) else str(_data(node).shape),
            value=summary(_data(node)),
            gradient=summary(node.grad) if show_gradients and node.grad is not None else "",
            parents=tuple(number[parent.birth] for parent in drawn_parents(node)),
            local_gradients=tuple(map(number_text, getattr(node, "local_gradients", ()))),
        )
        for node in nodes
    ]


def was_swept(root: Node) -> bool:
    """Return whether the graph has gradients: before a backward pass, a Tensor's is None and a Value's is 0."""
    return root.grad is not None and not (isinstance(root, Value) and root.grad == 0)


def _data(node: Any) -> Any:
    return node.data


def _kind(node: Any) -> str:
    if not node.parents:
        return CONSTANT if node.op == CONSTANT else LEAF
    return node.op


def number_text(number: Any) -> str:
    """Return a number with four significant digits."""
    return f"{float(number) + 0.0:.4g}"  # + 0.0 turns -0.0 into 0.0


def summary(x: Any) -> str:
    """Return a number, or the mean and standard deviation of an array of several."""
    array = host_array(x)
    if array.size == 1:
        return number_text(array.item())
    with np.errstate(all="ignore"):  # an infinite element makes both nan, which should be shown
        return f"{number_text(array.mean())} ± {number_text(array.std())}" if array.size else "empty"


def norm_text(x: Any) -> str:
    """Return a number, or the Euclidean norm of an array of several, between double bars."""
    array = host_array(x)
    return number_text(array.item()) if array.size == 1 else f"‖{number_text(np.linalg.norm(array))}‖"


def host_array(x: Any) -> np.ndarray:
    """Return a number, or an array of any backend, as a NumPy array of float64."""
    return np.asarray(to_host(x) if hasattr(x, "ndim") else x, dtype=np.float64)
