"""The scalar engine: a number that remembers where it came from, and one sweep that finds every gradient.

Read this file first; it takes ten minutes and needs nothing but Python. It also works on its own, copied anywhere.

>>> a, b = Value(2.0), Value(-3.0)
>>> loss = (a * b + 10).tanh()
>>> loss.backward()
>>> round(a.grad, 4), round(b.grad, 4)    # how much loss changes per unit of a, and of b
(-0.004, 0.0027)

The idea. Every operation makes a new node that knows its *parents* (the nodes it was computed from) and its *local
gradients*: for each parent, how much the result changes per unit of that parent. By the chain rule a parent's gradient
is the node's own gradient times the local one, summed over all nodes that were computed from that parent.
`backpropagate` walks the nodes from the result back to the leaves and adds these products up.

`Value` holds one float. `Tensor` (tensor.py) holds an array; it is a `Node` too, and one graph may contain both. Its
sweep (sweep.py) visits nodes in the same order, with a function in place of the local gradients.
"""

from __future__ import annotations

import gc
import itertools
import math
from collections.abc import Callable, Sequence
from numbers import Real
from operator import attrgetter
from typing import Any

births = itertools.count()

# Graphs of Values contain no reference cycles. Searching for cycles after every 700 allocations, as Python does by
# default, would take longer than all the arithmetic. A longer interval that the program has chosen, or 0, is kept.
if 0 < gc.get_threshold()[0] < 10_000:
    gc.set_threshold(10_000)


class Node:
    """A node in a computation graph; a leaf has no parents. `birth`, a serial number, exceeds those of the parents.

    Among the parents of an array, None stands for a constant.
    """

    __slots__ = ("birth", "grad", "parents")

    birth: int
    grad: Any
    parents: Sequence[Node | None]

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy or pickle a leaf as a new leaf without a gradient; computed nodes cannot be copied."""
        if self.parents:
            raise TypeError("copy: expected a leaf, received a computed node; copy its data instead")
        kept = {name: getattr(self, name) for name in ("data", "label") if hasattr(self, name)}
        return type(self), (kept.pop("data"),), (None, kept)


def topological_order(root: Node) -> list[Any]:
    """Return `root` and the nodes it was computed from, without leaves, oldest first: parents before children.

    No recursion, so a graph may have any depth.
    """
    nodes, seen = [], {None}
    waiting: list[Any] = [root]
    while waiting:
        node = waiting.pop()
        if node not in seen and node.parents:
            seen.add(node)
            nodes.append(node)
            waiting += node.parents
    nodes.sort(key=attrgetter("birth"))
    return nodes


def backpropagate(root: Value) -> None:
    """Compute the gradient of `root` with respect to every Value it was computed from.

    Leaves accumulate gradients, across sweeps too, until `grad` is reset. The others hold that of the latest sweep.
    """
    nodes = topological_order(root)
    for node in nodes:
        node.grad = 0.0
    root.grad += 1.0
    for node in reversed(nodes):  # whatever used a node is younger, so its gradient is complete when its turn comes
        d_out = node.grad
        for parent, local in zip(node.parents, node.local_gradients):  # noqa: B905 - `strict` would cost a tenth
            parent.grad += d_out * local


class Value(Node):
    """A float in a graph. `data` is the number; after `backward()`, `grad` is the result's gradient with respect to it.

    `op` is the symbol or name of the operation that produced it, `label` its name in a drawing.
    """

    __slots__ = ("data", "label", "local_gradients", "op")

    def __init__(
        self,
        data: Any,
        parents: Sequence[Value] = (),
        local_gradients: Sequence[float] = (),
        op: str = "",
        label: str = "",
    ) -> None:
        self.data = data
        self.grad = 0.0
        self.parents = parents
        self.local_gradients = local_gradients
        self.birth = next(births)
        self.op = op
        self.label = label

    def backward(self) -> None:
        """Compute the gradient of this Value with respect to everything it was computed from."""
        backpropagate(self)

    # Each operation computes its result and its local gradients, one for each parent. Where Python would raise an
    # error, they are infinite or nan, as with arrays: 1 / 0 is infinite.

    def __add__(self, other: Any) -> Value:
        if not isinstance(other, Value):
            return _with_number(Value.__add__, self, other)
        return Value(self.data + other.data, (self, other), (1.0, 1.0), "+")

    def __sub__(self, other: Any) -> Value:
        if not isinstance(other, Value):
            return _with_number(Value.__sub__, self, other)
        return Value(self.data - other.data, (self, other), (1.0, -1.0), "-")

    def __mul__(self, other: Any) -> Value:
        if not isinstance(other, Value):
            return _with_number(Value.__mul__, self, other)
        x, y = self.data, other.data
        return Value(x * y, (self, other), (y, x), "*")

    def __truediv__(self, other: Any) -> Value:
        if not isinstance(other, Value):
            return _with_number(Value.__truediv__, self, other)
        x, y = self.data, other.data
        if y == 0:
            inverse = _inverse(y)
            return Value(x * inverse, (self, other), (inverse, -x * inverse * inverse), "/")
        return Value(x / y, (self, other), (1 / y, -(x / y) / y), "/")

    def __pow__(self, other: Any) -> Value:
        if not isinstance(other, Value):
            return _with_number(Value.__pow__, self, other)
        x, y = self.data, other.data
        out = power(x, y)
        d_base = y * power(x, y - 1) if y else 0.0
        d_exponent = 0.0 if x <= 0 else out * math.log(x)  # a negative base has real powers only at some exponents
        return Value(out, (self, other), (d_base, d_exponent), "**")

    def __neg__(self) -> Value:
        return Value(-self.data, (self,), (-1.0,), "-")

    def exp(self) -> Value:
        """e to the power of this Value."""
        try:
            out = math.exp(self.data)
        except OverflowError:
            out = math.inf
        return Value(out, (self,), (out,), "exp")

    def log(self) -> Value:
        """The natural logarithm."""
        x = self.data
        if x > 0:
            return Value(math.log(x), (self,), (1 / x,), "log")
        return Value(-math.inf if x == 0 else math.nan, (self,), (_inverse(x),), "log")

    def sqrt(self) -> Value:
        """The square root."""
        out = math.sqrt(self.data) if self.data >= 0 else math.nan
        return Value(out, (self,), (0.5 * _inverse(out),), "sqrt")

    def tanh(self) -> Value:
        """The hyperbolic tangent."""
        out = math.tanh(self.data)
        return Value(out, (self,), (1 - out * out,), "tanh")

    def relu(self) -> Value:
        """This Value where it is positive, else zero."""
        if self.data <= 0:
            return Value(0.0, (self,), (0.0,), "relu")
        return Value(self.data, (self,), (1.0,), "relu")

    # With a plain number on the left, Python calls these on the right operand.

    def __radd__(self, other: Any) -> Value:
        return self + other

    def __rmul__(self, other: Any) -> Value:
        return self * other

    def __rsub__(self, other: Any) -> Value:
        return constant(other) - self

    def __rtruediv__(self, other: Any) -> Value:
        return constant(other) / self

    def __rpow__(self, other: Any) -> Value:
        return constant(other) ** self

    # Comparisons use only the number. `==` stays identity, so Values can be in sets and dictionaries.

    def __lt__(self, other: Any) -> bool:
        return self.data < _number(other)

    def __le__(self, other: Any) -> bool:
        return self.data <= _number(other)

    def __gt__(self, other: Any) -> bool:
        return self.data > _number(other)

    def __ge__(self, other: Any) -> bool:
        return self.data >= _number(other)

    def __float__(self) -> float:
        return float(self.data)

    def __repr__(self) -> str:
        return f"Value(data={self.data}, grad={self.grad})"

    # What graph-drawing programs look for, under micrograd's names.

    @property
    def _prev(self) -> set[Node | None]:
        return set(self.parents)

    @property
    def _op(self) -> str:
        return self.op


def constant(number: Any) -> Value:
    """Return a plain number as a Value that drawings can tell from a leaf."""
    return Value(number, op="constant")


def _with_number(operator: Callable[[Value, Value], Value], x: Value, number: Any) -> Value:
    """Apply `operator` with a plain number as second operand; other types are left to their own class."""
    return operator(x, constant(number)) if isinstance(number, (float, int, Real)) else NotImplemented


def power(x: float, y: float) -> float:
    """Return x to the power y, but infinite or nan where Python's `**` raises an error or returns a complex number."""
    try:
        return math.pow(x, y)
    except (OverflowError, ValueError):
        if x < 0 and y % 1:
            return math.nan
        return math.copysign(math.inf, x) if y % 2 == 1 else math.inf


def _inverse(x: float) -> float:
    return 1 / x if x else math.copysign(math.inf, x)


def _number(x: Any) -> Any:
    return x.data if isinstance(x, Value) else x
