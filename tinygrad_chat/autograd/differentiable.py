"""How a plain function over arrays becomes an operation over nodes.

An array op computes its result and returns it with its own backward rule:

    @differentiable
    def square(x):
        def backward(d_out):
            return (2 * x * d_out,)
        return x * x, backward

Inputs that may have gradients are positional, static options are keyword-only, and `backward` returns one gradient
(or None) for each positional input. An op may return a tuple of results instead of one: then `backward` takes the
gradient of each, None for a result that nothing was computed from. The result is a node of the class of the first node
among the inputs, so ops know nothing of `Tensor`. Called on bare arrays only, an op returns bare arrays: ops are also
plain functions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tinygrad_chat.autograd.mode import current_mode
from tinygrad_chat.autograd.value import Node, Rule
from tinygrad_chat.errors import ShapeError

ArrayOp = Callable[..., tuple[Any, Rule]]
"""(arrays..., *, options) -> (out, backward), or (outs, backward) with a tuple of results"""


class Operation:
    """An array op that also works on nodes. `reference` is the array function, `name` its name."""

    def __init__(self, reference: ArrayOp) -> None:
        functools.update_wrapper(self, reference)
        self.reference = reference
        self.name = reference.__name__

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Compute the op; if an input is a node, return a node that knows its parents and its rule."""
        first: Any = None
        parents: list[Node | None] = []
        arrays: list[Any] = []
        for x in inputs:
            if isinstance(x, Node):
                if first is None:
                    first = x
                parents.append(x)
                arrays.append(x.data)  # pyright: ignore[reportAttributeAccessIssue]
            else:
                parents.append(None)
                arrays.append(x)
        if first is None:
            return self._run(self.reference, arrays, options)[0]
        mode = current_mode()
        seen = None if mode.watcher is None else mode.watcher(self, inputs)
        out, rule = self._run(mode.kernels_for(first.data).get(self, self.reference), arrays, options)
        if seen is not None:
            rule = seen(out, rule)
        if type(out) is tuple:
            return _several(type(first), out, parents, rule if mode.recording else None)
        if not mode.recording:
            return type(first)(out)
        return type(first)(out, tuple(parents), rule)

    def _run(self, compute: ArrayOp, arrays: Sequence[Any], options: Mapping[str, Any]) -> tuple[Any, Rule]:
        try:
            return compute(*arrays, **options)
        except ShapeError:
            raise
        except (ValueError, IndexError) as error:  # the array library's own words, which do not name the op
            shapes = ", ".join(str(x.shape) for x in arrays if hasattr(x, "shape"))
            raise ShapeError(f"{self.name}: {error} (received {shapes or 'no arrays'})") from error

    def __repr__(self) -> str:
        return f"<op {self.name}>"


class _Gathered(dict[int, Any]):
    """Gradients of an op's results, by number. Those of others are added, and arrays, which are the first one's."""

    __array_ufunc__ = None  # so that `array + gathered` comes here

    def __add__(self, other: Any) -> _Gathered:
        others = other if isinstance(other, _Gathered) else {0: other}
        return _Gathered({**self, **{i: self[i] + d if i in self else d for i, d in others.items()}})

    __radd__ = __add__


def _several(kind: Any, results: tuple[Any, ...], parents: Sequence[Node | None], rule: Rule | None) -> tuple[Any, ...]:
    """Return a node for each result: the first is the parent of the others, so that all gradients meet there."""
    if rule is None:
        return tuple(map(kind, results))
    numbers = range(len(results))

    def rule_of_all(d: Any) -> Sequence[Any]:
        return rule(*map(d.get, numbers)) if type(d) is _Gathered else rule(d, *(None for _ in numbers[1:]))

    def hand_over(number: int) -> Rule:
        return lambda d_out: (_Gathered({number: d_out}),)

    first = kind(results[0], tuple(parents), rule_of_all)
    return first, *(kind(results[number], (first,), hand_over(number)) for number in numbers[1:])


def differentiable(reference: ArrayOp) -> Operation:
    """Turn an array op into an `Operation`; see the head of this file."""
    return Operation(reference)
