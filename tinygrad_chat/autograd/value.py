"""The scalar engine: a number that remembers where it came from, and one sweep that finds every gradient.

Read this file first; it takes ten minutes and needs nothing but Python. It also runs alone, copied anywhere.

>>> a, b = Value(2.0), Value(-3.0)
>>> loss = (a * b + 10).tanh()
>>> loss.backward()
>>> round(a.grad, 4), round(b.grad, 4)    # how much loss changes per unit of a, and of b
(-0.004, 0.0027)

The idea. Every operation makes a new `Node` that knows its *parents* (the nodes it was computed from) and its
*rule*: given d_out, the gradient of the final result with respect to this node, the rule returns the gradient
with respect to each parent. That is the chain rule, one link at a time. `backpropagate` walks the nodes from the
result back to the leaves, calls each rule once, and adds up what arrives at a node over several paths.

`Value` holds one float. `Tensor` (tensor.py) holds an array; it is a `Node` too, and the same sweep serves both.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

Rule = Callable[[Any], Sequence[Any]]
"""d_out -> one gradient for each parent, or None where a parent has no gradient."""

_births = itertools.count()


class Node:
    """A place in the graph of a computation.

    `parents` are the nodes it was computed from (None where an input was a plain constant) and `rule` maps its
    gradient to theirs; a leaf has neither. `birth` counts nodes: a node is always younger than its parents.
    """

    __slots__ = ("birth", "grad", "parents", "rule")

    grad: Any

    def __init__(self, parents: Sequence[Node | None] = (), rule: Rule | None = None) -> None:
        self.grad = None
        self.parents = parents
        self.rule = rule
        self.birth = next(_births)

    def accumulate(self, gradient: Any) -> None:
        """Add a leaf's gradient from one sweep to what earlier sweeps left, until someone resets `grad`."""
        self.grad = gradient if self.grad is None else self.grad + gradient


class PendingGradient:
    """A gradient that is not computed before it is known where it goes: straight into the buffer that adds it up.

    A rule may return one for a large weight; `shape` is the weight's. Values have no use for it.
    """

    shape: tuple[int, ...]

    def add_to(self, buffer: Any) -> None:
        """Compute it and add it to an array."""
        raise NotImplementedError

    def array(self) -> Any:
        """Compute it as an array of its own."""
        raise NotImplementedError


def deliver_to_leaf(leaf: Node, gradient: Any) -> None:
    """Add a gradient to the leaf's own."""
    leaf.accumulate(gradient)


def backpropagate(
    root: Node, seed: Any, *, release: bool = False, deliver: Callable[[Node, Any], None] = deliver_to_leaf
) -> None:
    """Give every node that `root` was computed from the gradient of `root`, where `root`'s own gradient is `seed`.

    Leaves add up what comes, across sweeps too, unless `deliver` takes it elsewhere. Inner nodes hold the gradient of
    the latest sweep; with `release` they drop it, their parents and their rule as the sweep passes, so that memory
    falls while it runs.

    Nodes are visited youngest first: all that was computed from a node is younger than it, so when its turn
    comes its gradient is complete. That order needs no recursion and no search for a topological order.
    """
    if root.rule is None:
        deliver(root, seed)
        return
    arrived = {root.birth: seed}  # gradients so far of the nodes still to visit
    owned: set[int] = set()  # which of them are sums made here, safe to add to in place
    waiting = [(-root.birth, root)]  # a heap: the youngest node comes out first
    while waiting:
        node = heapq.heappop(waiting)[1]
        d_out = arrived.pop(node.birth)
        parents, rule = node.parents, node.rule
        if release:
            node.grad, node.parents, node.rule = None, (), _released
        else:
            node.grad = d_out
        assert rule is not None  # leaves never wait
        for parent, gradient in zip(parents, rule(d_out), strict=False):  # a rule also covers inputs left out
            if parent is None or gradient is None:
                continue
            if parent.rule is None:
                deliver(parent, gradient)
                continue
            if isinstance(gradient, PendingGradient):
                gradient = gradient.array()
            birth = parent.birth
            if birth not in arrived:
                # Borrowed: a rule may hand the same array to two parents, so it must not be written to.
                arrived[birth] = gradient
                heapq.heappush(waiting, (-birth, parent))
            elif birth in owned and type(gradient) is type(arrived[birth]):
                arrived[birth] += gradient
            else:
                arrived[birth] = arrived[birth] + gradient
                owned.add(birth)


def _released(d_out: Any) -> Sequence[Any]:
    raise RuntimeError("backward: an earlier backward() released this graph; pass keep_graph=True to the earlier one")


def _with_number(method: Callable[[Value, Value], Value]) -> Callable[[Value, Any], Value]:
    """Let a method of two Values take a number as its second; other types are left to their own class."""

    def operator(self: Value, other: Any) -> Value:
        if isinstance(other, Value):
            return method(self, other)
        if isinstance(other, Real):
            return method(self, Value(other))
        return NotImplemented

    return operator


class Value(Node):
    """A float in a graph. `data` is the number; after `backward()`, `grad` is the gradient of the result for it."""

    __slots__ = ("data", "label")

    def __init__(
        self, data: Any, parents: Sequence[Node | None] = (), rule: Rule | None = None, label: str = ""
    ) -> None:
        super().__init__(parents, rule)
        self.data = data
        self.grad = 0.0
        self.label = label

    def backward(self) -> None:
        """Find the gradient of this Value with respect to everything it was computed from."""
        backpropagate(self, 1.0)

    # Each operation computes its result and states its rule: the local derivative for each parent, times d_out.

    @_with_number
    def __add__(self, other: Value) -> Value:
        return Value(self.data + other.data, (self, other), lambda d_out: (d_out, d_out))

    @_with_number
    def __sub__(self, other: Value) -> Value:
        return Value(self.data - other.data, (self, other), lambda d_out: (d_out, -d_out))

    @_with_number
    def __mul__(self, other: Value) -> Value:
        x, y = self.data, other.data
        return Value(x * y, (self, other), lambda d_out: (d_out * y, d_out * x))

    @_with_number
    def __truediv__(self, other: Value) -> Value:
        x, y = self.data, other.data
        if y == 0:
            raise ZeroDivisionError(f"divide: expected a divisor other than 0, received {x} / {y}")
        return Value(x / y, (self, other), lambda d_out: (d_out / y, -d_out * (x / y) / y))

    @_with_number
    def __pow__(self, other: Value) -> Value:
        x, y = self.data, other.data
        if x == 0 and y < 0:
            raise ZeroDivisionError(f"power: expected a base other than 0 for the exponent {y}, received {x}")
        out = x**y
        if isinstance(out, complex):
            raise ValueError(f"power: expected a base of at least 0 for the exponent {y}, received {x}")

        def rule(d_out: float) -> tuple[float, float]:
            d_x = d_out * y * x ** (y - 1) if y != 0 else 0.0
            d_y = d_out * out * math.log(x) if x > 0 else 0.0
            return d_x, d_y

        return Value(out, (self, other), rule)

    def __neg__(self) -> Value:
        return Value(-self.data, (self,), lambda d_out: (-d_out,))

    def exp(self) -> Value:
        """e to the power of this Value."""
        try:
            out = math.exp(self.data)
        except OverflowError:
            out = math.inf
        return Value(out, (self,), lambda d_out: (d_out * out,))

    def log(self) -> Value:
        """The natural logarithm."""
        x = self.data
        if x <= 0:
            raise ValueError(f"log: expected a positive number, received {x}")
        return Value(math.log(x), (self,), lambda d_out: (d_out / x,))

    def sqrt(self) -> Value:
        """The square root."""
        if self.data < 0:
            raise ValueError(f"sqrt: expected a number of at least 0, received {self.data}")
        out = math.sqrt(self.data)
        return Value(out, (self,), lambda d_out: (d_out / (2 * out),))

    def tanh(self) -> Value:
        """The hyperbolic tangent."""
        out = math.tanh(self.data)
        return Value(out, (self,), lambda d_out: (d_out * (1 - out * out),))

    def relu(self) -> Value:
        """This Value where it is positive, else zero."""
        positive = self.data > 0
        return Value(self.data if positive else 0.0, (self,), lambda d_out: (d_out if positive else 0.0,))

    # A plain number on the left: Python asks the right-hand side.

    def __radd__(self, other: Any) -> Value:
        return self + other

    def __rmul__(self, other: Any) -> Value:
        return self * other

    def __rsub__(self, other: Any) -> Value:
        return Value(other) - self

    def __rtruediv__(self, other: Any) -> Value:
        return Value(other) / self

    def __rpow__(self, other: Any) -> Value:
        return Value(other) ** self

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
        of_class, _, method = getattr(self.rule, "__qualname__", "").partition(".")
        method = method.partition(".")[0] if of_class == "Value" else ""
        return _SIGNS.get(method, method)


_SIGNS = {"__add__": "+", "__sub__": "-", "__mul__": "*", "__truediv__": "/", "__pow__": "**", "__neg__": "-"}


def _number(x: Any) -> Any:
    return x.data if isinstance(x, Value) else x
