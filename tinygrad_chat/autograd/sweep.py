"""The backward sweep over arrays: that of value.py, but careful with memory. The graph may contain Values, too.

The gradient of an array may be as large as the model. So here

- a node has a *rule* instead of local gradients: a function that returns the gradients of all its parents;
- the first gradient of a node is borrowed (a rule may return one array for two parents), the second creates a sum that
  the sweep owns, and later ones are added to that sum in place;
- a rule may say that its gradients are `Unshared`; the rule that receives one, if no one else will read it,
  `may_overwrite` it with its own;
- a rule may leave a gradient uncomputed, as a `PendingGradient`, until the buffer that accumulates it is known, and
  those of its other parents, or the sum that it is a term of;
- `deliver` may send the gradients of leaves somewhere other than their `grad`;
- nodes are released once the sweep has passed them, so memory use falls while it runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from tinygrad_chat.autograd.value import Node, Value, births, topological_order

Rule = Callable[[Any], Sequence[Any]]
"""d_out -> one gradient for each parent, or None where a parent has no gradient."""


class ArrayNode(Node):
    """An array in a graph. `rule` maps its gradient to its parents', `op` names the op; a leaf has neither."""

    __slots__ = ("data", "op", "rule")

    def __init__(self, data: Any, parents: Sequence[Node | None] = (), rule: Rule | None = None, op: str = "") -> None:
        self.data = data
        self.grad = None
        self.parents = parents
        self.rule = rule
        self.op = op
        self.birth = next(births)

    def accumulate(self, gradient: Any) -> None:
        """Add a gradient to this leaf's `grad`, which accumulates across sweeps until it is reset."""
        self.grad = gradient if self.grad is None else self.grad + gradient


class PendingGradient:
    """A gradient that is not computed until its destination is known, and then accumulated there directly.

    A rule may return one for a large weight; `shape` is the weight's. It may wait further, until those of the rule's
    other weights have their destinations, to be computed together with them: at the latest until `finish`, which the
    sweep calls for all of a rule's gradients once they are delivered.
    """

    shape: tuple[int, ...]

    def add_to(self, buffer: Any) -> None:
        """Compute the gradient and add it to `buffer`, now or when `finish` is called."""
        raise NotImplementedError

    def write_to(self, buffer: Any) -> None:
        """Compute the gradient and write it to `buffer`, whatever that held, now or when `finish` is called."""
        buffer.fill(0)
        self.add_to(buffer)

    def finish(self) -> None:
        """Compute what has waited."""

    def array(self) -> Any:
        """Compute the gradient as a new array."""
        raise NotImplementedError

    def plus(self, total: Any, *, own: bool) -> Any:
        """Compute the gradient, and return its sum with an array: in that array, which it may overwrite if it is the
        node's `own`, or in a new one."""
        return total + self.array()


class Unshared(tuple[Any, ...]):
    """What a rule returns if its gradients are new arrays: no two overlap, and nothing else refers to their memory."""

    __slots__ = ()


class _Lent(threading.local):
    """The upstream gradient that the rule which a sweep is calling in this thread may overwrite."""

    gradient: Any = None

    def to(self, rule: Rule, d_out: Any) -> Sequence[Any]:
        self.gradient = d_out
        try:
            return rule(d_out)
        finally:
            self.gradient = None


_lent = _Lent()


def may_overwrite(d_out: Any) -> bool:
    """Return whether the rule that was called with `d_out`, and asks now, may overwrite that array.

    It may if this was the node's only gradient and `Unshared`, or a sum that begins with such a one, and the sweep
    releases the graph. Anything that calls a rule other than a sweep still needs its arrays.
    """
    return d_out is not None and d_out is _lent.gradient


class _Released(tuple[()]):
    """The parents of a released node: empty, but testing whether the node is a leaf raises an error."""

    __slots__ = ()

    def __bool__(self) -> bool:
        raise RuntimeError(
            "backward: an earlier backward() released this graph; pass keep_graph=True to the earlier one"
        )


RELEASED = _Released()


def rule_of(node: Any) -> Rule:
    """Return the rule of a node that is not a leaf; a Value's multiplies by each of its local gradients."""
    if isinstance(node, Value):
        return lambda d_out: [d_out * local for local in node.local_gradients]
    return node.rule


def deliver_to_leaf(leaf: Node, gradient: Any) -> None:
    """Add a gradient to the leaf's `grad`."""
    if isinstance(leaf, ArrayNode):
        leaf.accumulate(gradient)
    else:
        leaf.grad += gradient


def backpropagate_arrays(
    root: Node, seed: Any, *, release: bool = False, deliver: Callable[[Node, Any], None] = deliver_to_leaf
) -> None:
    """Compute the gradient of `root` with respect to every node it was computed from; `seed` is that of `root` itself.

    Leaves accumulate gradients, across sweeps too, unless `deliver` sends them elsewhere. Inner nodes hold the gradient
    of the latest sweep; with `release` they drop it, their parents and their rule as the sweep passes.
    """
    if not root.parents:
        deliver(root, seed)
        return
    nodes = topological_order(root)
    for node in nodes:
        node.grad = None
    root.grad = seed
    owned: set[int] = set()  # births of the nodes whose gradient is a sum created here, safe to add to in place
    unshared: set[int] = set()  # of those whose first gradient nobody else has
    _lent.gradient = None  # a rule that sweeps by itself still has its seed
    pending: list[PendingGradient] = []  # of the leaves of one node, delivered but perhaps not computed yet
    while nodes:
        node = nodes.pop()  # the youngest; nothing here keeps a reference to it any longer
        if node.grad is None:  # no rule has sent it a gradient
            continue
        d_out, parents, rule = node.grad, node.parents, rule_of(node)
        if release:
            node.grad, node.parents = None, RELEASED
            if isinstance(node, ArrayNode):
                node.rule = None
        gradients = _lent.to(rule, d_out) if release and node.birth in unshared else rule(d_out)
        new = type(gradients) is Unshared
        for parent, gradient in zip(parents, gradients):  # noqa: B905 - a rule also covers omitted inputs
            if parent is None or gradient is None:
                continue
            if not parent.parents:
                deliver(parent, gradient)
                if isinstance(gradient, PendingGradient):
                    pending.append(gradient)
                continue
            if isinstance(gradient, PendingGradient):
                if type(parent.grad) is type(parent.data):
                    own = parent.birth in owned or parent.birth in unshared
                    parent.grad = gradient.plus(parent.grad, own=own)
                    owned.add(parent.birth)
                    continue
                gradient = gradient.array()
            if parent.grad is None:
                parent.grad = gradient  # borrowed, unless it is new: must not be written to
                if new:
                    unshared.add(parent.birth)
            elif parent.birth in owned and type(gradient) is type(parent.grad):
                parent.grad += gradient
            else:
                parent.grad = parent.grad + gradient
                owned.add(parent.birth)
        del gradients
        for each in pending:
            each.finish()
        pending.clear()
