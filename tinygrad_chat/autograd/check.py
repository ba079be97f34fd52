"""Verify backward rules in two independent ways.

Exactly: the op's forward runs on object arrays of scalar `Value`s, so the scalar engine differentiates it without any
step size. The hand-written rule must agree up to rounding.

Numerically: a finite difference of forward runs along a random direction must agree with the rule's gradient
projected onto it.

Both accept any function of arrays built from ops, so compositions and kernels are checked by the same code.

>>> import numpy as np
>>> from tinygrad_chat import ops
>>> check_exactly(ops.tanh, np.array([0.5, -2.0])) < 1e-12
True
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinygrad_chat.autograd.sweep import ArrayNode, backpropagate_arrays
from tinygrad_chat.autograd.value import Value

EXACT_TOLERANCE = 1e-12
NUMERIC_TOLERANCE = 1e-6


class WrongGradientError(AssertionError):
    """A backward rule that disagrees with its forward."""


class _Array(ArrayNode):
    """The minimal node that ops accept: an array in a graph."""

    __slots__ = ()

    def __init__(self, data: Any, *computed: Any) -> None:
        super().__init__(np.asarray(data), *computed)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape


def _is_variable(x: Any) -> bool:
    return isinstance(x, (np.ndarray, np.floating)) and x.dtype.kind == "f"


def rule_gradients(function: Callable[..., Any], *inputs: Any, d_out: Any) -> list[np.ndarray | None]:
    """Return the gradients of sum(function(*inputs) * d_out) by the hand-written rules; None for non-float inputs."""
    nodes = [_Array(x) if _is_variable(x) else x for x in inputs]
    backpropagate_arrays(function(*nodes), d_out)
    zero = [np.zeros_like(x) if _is_variable(x) else None for x in inputs]
    return [
        (none if node.grad is None else np.asarray(node.grad)) if isinstance(node, _Array) else None
        for node, none in zip(nodes, zero, strict=True)
    ]


def exact_gradients(function: Callable[..., Any], *inputs: Any, d_out: Any) -> list[np.ndarray | None]:
    """Return the same gradients by the scalar engine: `function` runs on arrays of Values. Use float64."""
    as_values = np.frompyfunc(lambda number: Value(float(number)), 1, 1)
    wrapped = [np.asarray(as_values(x), dtype=object) if _is_variable(x) else x for x in inputs]
    out = np.asarray(function(*wrapped), dtype=object)
    root = Value(0.0)
    for element, weight in zip(out.ravel(), np.broadcast_to(d_out, out.shape).ravel(), strict=True):
        root = root + element * float(weight)
    root.backward()
    gradient_of = np.frompyfunc(lambda value: value.grad, 1, 1)
    return [
        np.asarray(gradient_of(x), dtype=np.float64) if _is_variable(given) else None
        for x, given in zip(wrapped, inputs, strict=True)
    ]


def projected_difference(
    function: Callable[..., Any], *inputs: Any, d_out: Any, directions: Sequence[Any], step: float = 1e-5
) -> float:
    """Return d/ds of sum(function(inputs + s * directions) * d_out) at s = 0, by a fourth-order central difference."""

    def at(s: float) -> float:
        moved = [x if v is None else x + s * v for x, v in zip(inputs, directions, strict=True)]
        return float(np.sum(function(*moved) * d_out))

    near, far = at(step) - at(-step), at(2 * step) - at(-2 * step)
    return (8 * near - far) / (12 * step)


def _draw_d_out(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw an upstream gradient. It is read-only: a rule must not write to an array that others also receive."""
    d_out = np.asarray(random.normal(size=shape))
    d_out.setflags(write=False)
    return d_out


def check_exactly(
    function: Callable[..., Any], *inputs: Any, seed: int = 0, tolerance: float = EXACT_TOLERANCE
) -> float:
    """Compare the rules with the scalar engine; return the worst relative difference.

    Raises WrongGradientError, naming the input, if it exceeds `tolerance` or a shape is wrong.
    """
    d_out = _draw_d_out(np.random.default_rng(seed), np.shape(function(*inputs)))
    by_rule = _checked_shapes(function, inputs, rule_gradients(function, *inputs, d_out=d_out))
    exact = exact_gradients(function, *inputs, d_out=d_out)
    worst = 0.0
    for position, (rule, truth) in enumerate(zip(by_rule, exact, strict=True)):
        if rule is None or truth is None:
            continue
        scale = max(1.0, float(np.max(np.abs(truth), initial=0.0)))
        difference = float(np.max(np.abs(rule - truth), initial=0.0)) / scale
        if not difference <= tolerance:
            raise WrongGradientError(
                f"{_name(function)}: the gradient of input {position} differs from the exact one "
                f"by {difference:.1e}, expected at most {tolerance:.0e}"
            )
        worst = max(worst, difference)
    return worst


def check_numerically(
    function: Callable[..., Any], *inputs: Any, seed: int = 0, tolerance: float = NUMERIC_TOLERANCE
) -> float:
    """Compare the rules with finite differences, one random direction per input; return the worst difference.

    Raises WrongGradientError, naming the input, if it exceeds `tolerance` relative to the gradient's size.
    """
    random = np.random.default_rng(seed)
    d_out = _draw_d_out(random, np.shape(function(*inputs)))
    by_rule = _checked_shapes(function, inputs, rule_gradients(function, *inputs, d_out=d_out))
    worst = 0.0
    for position, rule in enumerate(by_rule):
        if rule is None:
            continue
        direction = random.normal(size=inputs[position].shape)
        directions = [direction if k == position else None for k in range(len(inputs))]
        numeric = projected_difference(function, *inputs, d_out=d_out, directions=directions)
        scale = max(1.0, float(np.sqrt(np.sum(rule * rule) * np.sum(direction * direction))))
        difference = abs(float(np.sum(rule * direction)) - numeric) / scale
        if not difference <= tolerance:
            raise WrongGradientError(
                f"{_name(function)}: along a random direction of input {position} the rule's slope differs from "
                f"the measured one by {difference:.1e}, expected at most {tolerance:.0e}"
            )
        worst = max(worst, difference)
    return worst


def _checked_shapes(
    function: Callable[..., Any], inputs: Sequence[Any], gradients: list[np.ndarray | None]
) -> list[np.ndarray | None]:
    for position, (x, gradient) in enumerate(zip(inputs, gradients, strict=True)):
        if gradient is not None and gradient.shape != x.shape:
            raise WrongGradientError(
                f"{_name(function)}: input {position} has shape {x.shape} but its gradient {gradient.shape}"
            )
    return gradients


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", repr(function))
