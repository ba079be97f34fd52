"""The scalar engine as textbooks write it, in two forms: the yardsticks for ours.

In both, an operation makes a node, and `backward` first searches, by recursion, for an order in which each node comes
after all that it was computed from. They differ in what a node keeps: a closure that passes its gradient on, which is
micrograd's form, or its local gradients, which is microgpt's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any


class _TextbookValue:
    """What both forms say in terms of `+`, `*` and `**`."""

    __slots__ = ()

    def __neg__(self: Any) -> Any:
        return self * -1.0

    def __sub__(self: Any, other: Any) -> Any:
        return self + (-other)

    def __truediv__(self: Any, other: Any) -> Any:
        return self * other**-1

    def __radd__(self: Any, other: float) -> Any:
        return self + other

    def __rmul__(self: Any, other: float) -> Any:
        return self * other


class ClosureValue(_TextbookValue):
    """A number, the nodes that it was computed from, and a function that adds to their gradients."""

    def __init__(self, data: float, children: Iterable[ClosureValue] = ()) -> None:
        self.data = data
        self.grad = 0.0
        self.children = set(children)
        self.pass_on: Callable[[], None] = lambda: None

    def __add__(self, other: ClosureValue | float) -> ClosureValue:
        other = other if isinstance(other, ClosureValue) else ClosureValue(other)
        out = ClosureValue(self.data + other.data, (self, other))

        def pass_on() -> None:
            self.grad += out.grad
            other.grad += out.grad

        out.pass_on = pass_on
        return out

    def __mul__(self, other: ClosureValue | float) -> ClosureValue:
        other = other if isinstance(other, ClosureValue) else ClosureValue(other)
        out = ClosureValue(self.data * other.data, (self, other))

        def pass_on() -> None:
            self.grad += other.data * out.grad
            other.grad += self.data * out.grad

        out.pass_on = pass_on
        return out

    def __pow__(self, exponent: float) -> ClosureValue:
        return self._function(self.data**exponent, exponent * self.data ** (exponent - 1))

    def exp(self) -> ClosureValue:
        """e to the power of this number."""
        out = math.exp(self.data)
        return self._function(out, out)

    def log(self) -> ClosureValue:
        """The natural logarithm."""
        return self._function(math.log(self.data), 1 / self.data)

    def relu(self) -> ClosureValue:
        """This number where it is positive, else 0."""
        return self._function(max(0.0, self.data), float(self.data > 0))

    def _function(self, data: float, slope: float) -> ClosureValue:
        out = ClosureValue(data, (self,))

        def pass_on() -> None:
            self.grad += slope * out.grad

        out.pass_on = pass_on
        return out

    def backward(self) -> None:
        """Let every node pass its gradient on, each after all that were computed from it."""
        order: list[ClosureValue] = []
        seen: set[ClosureValue] = set()

        def visit(node: ClosureValue) -> None:
            if node not in seen:
                seen.add(node)
                for child in node.children:
                    visit(child)
                order.append(node)

        visit(self)
        self.grad = 1.0
        for node in reversed(order):
            node.pass_on()


class LocalGradientValue(_TextbookValue):
    """A number, the nodes that it was computed from, and its derivative with respect to each of them."""

    __slots__ = ("children", "data", "grad", "local_gradients")

    def __init__(
        self, data: float, children: tuple[LocalGradientValue, ...] = (), local_gradients: tuple[float, ...] = ()
    ) -> None:
        self.data = data
        self.grad = 0.0
        self.children = children
        self.local_gradients = local_gradients

    def __add__(self, other: LocalGradientValue | float) -> LocalGradientValue:
        other = other if isinstance(other, LocalGradientValue) else LocalGradientValue(other)
        return LocalGradientValue(self.data + other.data, (self, other), (1.0, 1.0))

    def __mul__(self, other: LocalGradientValue | float) -> LocalGradientValue:
        other = other if isinstance(other, LocalGradientValue) else LocalGradientValue(other)
        return LocalGradientValue(self.data * other.data, (self, other), (other.data, self.data))

    def __pow__(self, exponent: float) -> LocalGradientValue:
        return LocalGradientValue(self.data**exponent, (self,), (exponent * self.data ** (exponent - 1),))

    def exp(self) -> LocalGradientValue:
        """e to the power of this number."""
        out = math.exp(self.data)
        return LocalGradientValue(out, (self,), (out,))

    def log(self) -> LocalGradientValue:
        """The natural logarithm."""
        return LocalGradientValue(math.log(self.data), (self,), (1 / self.data,))

    def relu(self) -> LocalGradientValue:
        """This number where it is positive, else 0."""
        return LocalGradientValue(max(0.0, self.data), (self,), (float(self.data > 0),))

    def backward(self) -> None:
        """Multiply and add up along the edges, each node after all that were computed from it."""
        order: list[LocalGradientValue] = []
        seen: set[LocalGradientValue] = set()

        def visit(node: LocalGradientValue) -> None:
            if node not in seen:
                seen.add(node)
                for child in node.children:
                    visit(child)
                order.append(node)

        visit(self)
        self.grad = 1.0
        for node in reversed(order):
            for child, local in zip(node.children, node.local_gradients):  # noqa: B905 - as it is written
                child.grad += local * node.grad
