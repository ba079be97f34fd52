"""The scalar engine: a number that remembers where it came from, and one sweep that finds every gradient.

Read this file first; it takes ten minutes and needs nothing but Python. It also runs alone, copied anywhere.

>>> a, b = Value(2.0), Value(-3.0)
>>> loss = (a * b + 10).tanh()
>>> loss.backward()
>>> round(a.grad, 4), round(b.grad, 4)    # how much loss changes per unit of a, and of b
(-0.004, 0.0027)

The idea. Every operation makes a new node that knows its *parents* (the nodes it was computed from) and its *local
gradients*: for each parent, how much the result changes per unit of that parent. By the chain rule a parent's gradient
is the node's own gradient times the local one, summed over all nodes that were computed from that parent.
`backpropagate` walks the nodes from the result back to the leaves and adds these products up.

`Value` holds one float. `Tensor` (tensor.py) holds an array; it is a `Node` too, and both may stand in one graph: its
sweep (sweep.py) walks in the same order, with a function in the place of the numbers.
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

# Graphs of Values hold no reference cycles. Looking for some after every 700 objects, as Python does unless it is told
# otherwise, would take more time than all the arithmetic. A program that has chosen a longer interval, or 0, keeps it.
if 0 < gc.get_threshold()[0] < 10_000:
    gc.set_threshold(10_000)


class Node:
    """A node in the graph of a computation; a leaf has no parents. A node's birth is later than those of its parents.

    Among the parents of an array, None stands for a constant.
    """

    __slots__ = ("birth", "grad", "parents")

    birth: int
    grad: Any
    parents: Sequence[Node | None]

    def __reduce__(self) -> tuple[Any, ...]:
        """Let copies and pickles of a leaf be leaves of their own, without a gradient; what was computed has none."""
        if self.parents:
            raise TypeError("copy: expected a leaf, received what was computed from others; copy its data instead")
        kept = {name: getattr(self, name) for name in ("data", "label") if hasattr(self, name)}
        return type(self), (kept.pop("data"),), (None, kept)


def topological_order(root: Node) -> list[Any]:
    """Return `root` and the nodes that it was computed from, without leaves, the oldest first: parents before children.

    No recursion, so that a graph may be of any depth.
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
    """Give every Value that `root` was computed from the gradient of `root`.

    Leaves add up what comes, across sweeps too, until someone resets `grad`. The others hold that of the latest sweep.
    """
    nodes = topological_order(root)
    for node in nodes:
        node.grad = 0.0
    root.grad += 1.0
    for node in reversed(nodes):  # all that was computed from a node is younger: its gradient is complete at its turn
        d_out = node.grad
        for parent, local in zip(node.parents, node.local_gradients):  # noqa: B905 - `strict` would cost a tenth
            parent.grad += d_out * local


class Value(Node):
    """A float in a graph. `data` is the number; after `backward()`, `grad` is the gradient of the result for it.

    `op` is the sign or the name of the operation that made it, `label` what a drawing calls it.
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
        """Find the gradient of this Value with respect to everything it was computed from."""
        backpropagate(self)

    # Each operation computes its result and states its local gradients, one for each parent. Where Python would raise
    # an error, they are infinite or nan, as in arrays: 1 / 0 is infinite.

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
        d_exponent = 0.0 if x <= 0 else out * math.log(x)  # a base below 0 has powers only here and there
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

    # A plain number on the left: Python asks the right-hand side.

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

    # Comparisons look at the number only. `==` stays identity: Values live in sets and dictionaries.

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

    # What programs that draw a graph ask for, under the names that micrograd gave them.

    @property
    def _prev(self) -> set[Node | None]:
        return set(self.parents)

    @property
    def _op(self) -> str:
        return self.op


def constant(number: Any) -> Value:
    """A plain number as a Value of its own, which a drawing tells from a leaf."""
    return Value(number, op="constant")


def _with_number(operator: Callable[[Value, Value], Value], x: Value, number: Any) -> Value:
    """Let a plain number be the second operand, as a Value; other types are left to their own class."""
    return operator(x, constant(number)) if isinstance(number, (float, int, Real)) else NotImplemented


def power(x: float, y: float) -> float:
    """x to the power y, infinite or nan where Python's own raises an error or turns to complex numbers."""
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
