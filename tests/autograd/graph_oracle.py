"""The oracle of the random graphs: a plain record of what was computed from what, and tangents pushed forwards
through it, by formulas of its own. It never goes backwards.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinygrad_chat import Tensor, Value, ops
from tinygrad_chat.autograd import PendingGradient, Unshared, differentiable, may_overwrite


@dataclass(frozen=True)
class Op:
    """What the engine runs, and what the oracle knows of it: its value, and its tangent from those of the inputs."""

    run: Callable[..., Any]
    value: Callable[..., Any]
    tangent: Callable[..., Any]  # (values, tangents, **options)
    fits: Callable[..., bool] = lambda *values: True
    inputs: tuple[int, ...] = (1,)  # how many it may have,
    takes: Any = (Value, Tensor, np.ndarray, float, int)  # and of which types
    options: Callable[..., list[dict[str, Any]]] = lambda *values: [{}]  # those to choose from


@dataclass(frozen=True)
class Step:
    """A line of the record: a number that was given, or an op and the lines of its inputs."""

    value: np.ndarray
    op: Op | None = None
    inputs: tuple[int, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


def push(record: Sequence[Step], start: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Tangents of all lines that depend on the lines in `start`, which move in the directions given there."""
    tangents = dict(start)
    for line, step in enumerate(record):
        if step.op and line not in start and any(k in tangents for k in step.inputs):
            values = [record[k].value for k in step.inputs]
            moves = [tangents.get(k, np.zeros_like(record[k].value)) for k in step.inputs]
            tangents[line] = np.asarray(step.op.tangent(values, moves, **step.options))
    return tangents


def pointwise(run: Any, value: Any, *partials: Any, fits: Any = lambda *values: True) -> Op:
    """An op on elements, by its partial derivatives."""

    def tangent(values: Any, moves: Any) -> Any:
        return sum(partial(*values) * move for partial, move in zip(partials, moves, strict=True))

    return Op(run, value, tangent, fits, inputs=(len(partials),))


def linear(run: Any, value: Any, **more: Any) -> Op:
    """An op that moves and adds elements: it does to tangents what it does to values."""
    return Op(run, value, lambda values, moves, **options: value(*moves, **options), **more)


def softmax_tangent(values: Any, moves: Any, axis: int) -> Any:
    e = np.exp(values[0])
    p = e / e.sum(axis, keepdims=True)
    return p * moves[0] - p * (p * moves[0]).sum(axis, keepdims=True)


# What no op does, but kernels do.


@differentiable
def weighed(*terms: Any):
    """2 y + 3 z + ... - x. The rule overwrites the gradient that it receives, if it may; its own are nobody else's."""

    def backward(d_out):
        first = d_out if may_overwrite(d_out) else d_out.copy()
        others = [weight * d_out for weight in range(2, len(terms) + 1)]
        first *= -1
        return Unshared((first, *others))

    return sum(weight * x for weight, x in enumerate(terms[1:], 2)) - terms[0], backward


class PendingTriple(PendingGradient):
    """3 d_out, added to other gradients in their place where that is allowed."""

    def __init__(self, d_out: Any) -> None:
        self._d_out, self.shape = d_out, np.shape(d_out)

    def add_to(self, buffer: Any) -> None:
        buffer += self.array()

    def array(self) -> Any:
        return 3 * self._d_out

    def plus(self, total: Any, *, own: bool) -> Any:
        total = total if own else total.copy()
        total += self.array()
        return total


@differentiable
def tripled(*terms: Any):
    """3 x, or 3 x + 3 y. Its gradients wait for others of the same nodes."""
    return 3 * sum(terms), lambda d_out: [PendingTriple(d_out) for _ in terms]


# The ops, with the domains in which numbers and slopes stay tame.


def broadcast(x: Any, y: Any) -> bool:
    return all(1 in pair or pair[0] == pair[1] for pair in zip(x.shape[::-1], y.shape[::-1], strict=False))


def apart(x: Any) -> bool:
    """No two elements so close that rounding decides which is larger."""
    in_order: Any = np.sort(x, axis=None)
    return bool(np.all(in_order[1:] - in_order[:-1] > 1e-6))


def axes(x: Any) -> list[dict[str, Any]]:
    return [{"axis": axis} for axis in range(x.ndim)]


def reductions(x: Any) -> list[dict[str, Any]]:
    return [{"axis": None}, *axes(x), *({"axis": axis, "keepdims": True} for axis in range(x.ndim))]


def shapes(x: Any) -> list[dict[str, Any]]:
    return [{"shape": shape} for shape in [(x.size,), (1, x.size), x.shape[::-1], (*x.shape, 1)]]


def keys(x: Any) -> list[dict[str, Any]]:
    return [{"key": key} for key in (0, slice(None, None, -1), (..., -1), np.array([0, -1, 0])) if x.ndim]


def seams(*pieces: Any) -> list[dict[str, Any]]:
    first, *others = (piece.shape for piece in pieces)
    return [
        {"axis": axis}
        for axis in range(len(first))
        if all(
            (*s[:axis], *s[axis + 1 :]) == (*first[:axis], *first[axis + 1 :]) and len(s) == len(first) for s in others
        )
    ]


def multiplies(x: Any, y: Any) -> bool:
    return x.ndim >= 2 and y.ndim >= 2 and x.shape[-1] == y.shape[-2] and broadcast(x[..., 0, 0], y[..., 0, 0])


def is_layer(x: Any, weight: Any, bias: Any = None) -> bool:
    fits = x.ndim >= 1 and weight.ndim == 2 and x.shape[-1] == weight.shape[1]
    return fits and (bias is None or bias.shape == weight.shape[:1])


def layer_tangent(values: Any, moves: Any) -> Any:
    (x, weight), (d_x, d_weight), d_bias = values[:2], moves[:2], moves[2:]
    return d_x @ weight.T + x @ d_weight.T + sum(d_bias)


# On Values and Tensors alike.
POINTWISE = {
    "add": pointwise(operator.add, np.add, lambda x, y: 1, lambda x, y: 1, fits=broadcast),
    "subtract": pointwise(operator.sub, np.subtract, lambda x, y: 1, lambda x, y: -1, fits=broadcast),
    "multiply": pointwise(operator.mul, np.multiply, lambda x, y: y, lambda x, y: x, fits=broadcast),
    "divide": pointwise(
        operator.truediv,
        np.divide,
        lambda x, y: 1 / y,
        lambda x, y: -x / y**2,
        fits=lambda x, y: broadcast(x, y) and np.abs(y).min() >= 0.2,
    ),
    "power": pointwise(
        operator.pow,
        np.power,
        lambda x, y: x**y * y / x,
        lambda x, y: x**y * np.log(x),
        fits=lambda x, y: broadcast(x, y) and x.min() >= 0.2 and x.max() <= 5 and np.abs(y).max() <= 3,
    ),
    "negative": pointwise(operator.neg, np.negative, lambda x: -1),
    "exp": pointwise(lambda x: x.exp(), np.exp, np.exp, fits=lambda x: x.max() <= 4),
    "log": pointwise(lambda x: x.log(), np.log, lambda x: 1 / x, fits=lambda x: x.min() >= 0.1),
    "sqrt": pointwise(lambda x: x.sqrt(), np.sqrt, lambda x: 0.5 / np.sqrt(x), fits=lambda x: x.min() >= 0.1),
    "tanh": pointwise(lambda x: x.tanh(), np.tanh, lambda x: 1 / np.cosh(x) ** 2),
    "relu": pointwise(
        lambda x: x.relu(), lambda x: np.maximum(x, 0), lambda x: x > 0, fits=lambda x: np.abs(x).min() >= 1e-6
    ),
}
# On Tensors alone.
ARRAYS = (Tensor, np.ndarray)
ARRAY = {
    "sum": linear(lambda x, **o: x.sum(**o), np.sum, options=reductions, takes=ARRAYS),
    "mean": linear(lambda x, **o: x.mean(**o), np.mean, options=reductions, takes=ARRAYS),
    "max": Op(
        lambda x, **o: x.max(**o),
        np.max,
        lambda values, moves, **o: (moves[0] * (values[0] == values[0].max(o["axis"], keepdims=True))).sum(**o),
        fits=apart,
        options=reductions,
        takes=ARRAYS,
    ),
    "softmax": Op(
        ops.softmax,
        lambda x, axis: np.exp(x) / np.exp(x).sum(axis, keepdims=True),
        softmax_tangent,
        options=axes,
        takes=ARRAYS,
    ),
    "reshape": linear(ops.reshape, lambda x, shape: np.reshape(x, shape), options=shapes, takes=ARRAYS),
    "transpose": linear(lambda x: x.T, np.transpose, takes=ARRAYS),
    "index": linear(lambda x, key: x[key], lambda x, key: x[key], options=keys, takes=ARRAYS),
    "concatenate": linear(
        ops.concatenate, lambda *x, axis: np.concatenate(x, axis), inputs=(2, 3), options=seams, takes=ARRAYS
    ),
    "matmul": Op(
        operator.matmul,
        np.matmul,
        lambda values, moves: moves[0] @ values[1] + values[0] @ moves[1],
        fits=multiplies,
        inputs=(2,),
        takes=ARRAYS,
    ),
    "linear": Op(
        ops.linear,
        lambda x, weight, *bias: x @ weight.T + sum(bias),
        layer_tangent,
        fits=is_layer,
        inputs=(2, 3),
        takes=ARRAYS,
    ),
    "tripled": linear(
        tripled,
        lambda *terms: 3 * sum(terms),
        fits=lambda *terms: len({x.shape for x in terms}) == 1,
        inputs=(1, 2),
        takes=ARRAYS,
    ),
    "weighed": linear(
        weighed,
        lambda *terms: sum(weight * x for weight, x in enumerate(terms[1:], 2)) - terms[0],
        fits=lambda *terms: len({x.shape for x in terms}) == 1,
        inputs=(2, 3),
        takes=ARRAYS,
    ),
}
# From Values to a Tensor.
SEAM = {
    "from_values": linear(
        lambda *values, shape: Tensor.from_values(np.array(values, dtype=object).reshape(shape).tolist()),
        lambda *values, shape: np.array(values).reshape(shape),
        inputs=(1, 2, 3),
        takes=(Value,),
        options=lambda *values: [{"shape": (len(values),)}, {"shape": (len(values), 1)}],
    )
}
