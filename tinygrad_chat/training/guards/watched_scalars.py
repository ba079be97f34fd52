"""A scalar model that checks every number of its graphs, and names the op and layer of one that is not finite."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tinygrad_chat.autograd import Value
from tinygrad_chat.autograd.value import births, topological_order
from tinygrad_chat.models.scalar import ScalarLoss, ScalarModel
from tinygrad_chat.models.scalar_gpt import ScalarGPT

WORDS = {"+": "addition", "-": "subtraction", "*": "multiplication", "/": "division", "**": "power"}

Names = Mapping[Any, str]
"""weight -> the name of its parameter"""


class NotFiniteError(Exception):
    """The first number that is NaN or infinite: whether a result or a gradient, and of which op."""


def place(operation: str, own: Iterable[str], before: Iterable[str]) -> str:
    """Describe where in a model an op is, by its `own` parameters or, if it has none, those used just `before`.

    >>> place("linear", ["head.weight", "head.bias"], []), place("gelu", [], ["blocks.0.feed_forward.expand.weight"])
    ('linear of head', 'gelu after blocks.0.feed_forward.expand')
    """
    layers = dict.fromkeys(name.rpartition(".")[0] or name for name in own or before)
    return f"{operation} {'of' if own else 'after'} {' and '.join(layers) or 'the first layer'}"


class WatchedScalarModel(ScalarModel):
    """A ScalarModel that raises NotFiniteError if its losses, its logits or their gradients are not finite."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        plain = self._gpt
        self._names = {value: name for name, values in plain.weights.items() for value in _flat(values)}
        self._gpt = _WatchedGPT(self._names, plain.weights, plain.options, plain.vocabulary)

    def loss(self, *batch: Any, **options: Any) -> ScalarLoss:
        """Return the loss, as any model does."""
        return _WatchedLoss(self._names, super().loss(*batch, **options).value, self._values, self._parameters)


def _flat(values: Any) -> Iterable[Value]:
    return [values] if isinstance(values, Value) else (value for inner in values for value in _flat(inner))


def _watched(method: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a method of a ScalarGPT so that it checks every number it computes."""

    @functools.wraps(method)
    def look(self: _WatchedGPT, *inputs: Any) -> Any:
        began = next(births)
        result = method(self, *inputs)
        nodes = _younger(result if isinstance(result, list) else [result], began)
        for node in nodes:
            if not math.isfinite(node.data):
                raise NotFiniteError(f"the result of {_place_of(node, nodes, self.names)}")
        return result

    return look


class _WatchedGPT(ScalarGPT):
    def __init__(self, names: Names, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.names = names

    token_logits = _watched(ScalarGPT.token_logits)
    token_losses = _watched(ScalarGPT.token_losses)
    loss = _watched(ScalarGPT.loss)


class _WatchedLoss(ScalarLoss):
    def __init__(self, names: Names, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._names = names

    def backward(self) -> None:
        super().backward()
        nodes = topological_order(self.value)
        for node in reversed(nodes):  # the order of the backward pass; each node keeps its upstream gradient
            if not all(math.isfinite(node.grad * local) for local in node.local_gradients):
                raise NotFiniteError(f"the gradient from {_place_of(node, nodes, self._names)}")


def _younger(roots: Iterable[Value], began: int) -> list[Value]:
    """Return the nodes born after `began` from which `roots` were computed, in order of computation."""
    nodes: set[Value] = set()
    waiting: list[Any] = list(roots)
    while waiting:
        node = waiting.pop()
        if node.birth > began and node.parents and node not in nodes:
            nodes.add(node)
            waiting += node.parents
    return sorted(nodes, key=lambda node: node.birth)


def _place_of(found: Value, nodes: Sequence[Value], names: Names) -> str:
    before: list[str] = []
    for node in nodes:
        own = [names[parent] for parent in node.parents if parent in names]
        if node is found:
            return place(WORDS.get(node.op, node.op), own, before)
        before = own or before
    raise AssertionError("is among the nodes")
