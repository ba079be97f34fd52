"""Several steps of scalar arithmetic fused into one node. Standard library only.

A dot product of 16 pairs is either 31 nodes of `+` and `*` or one node with all 32 local gradients. The numbers are
the same; there are fewer nodes to create, keep and sweep. Each function equals the plain expression in the first line
of its docstring, which the tests check.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import mul

from tinygrad_chat.autograd.value import Value, power

Vector = Sequence[Value]
Matrix = Sequence[Vector]


def matrix_vector(rows: Matrix, xs: Vector) -> list[Value]:
    """[sum(weight * x for weight, x in zip(row, xs)) for row in rows]; one node per row."""
    x_data = [x.data for x in xs]

    def product(row: Vector) -> Value:
        row_data = [weight.data for weight in row]
        return Value(sum(map(mul, row_data, x_data)), (*row, *xs), (*x_data, *row_data), "matrix_vector")

    return [product(row) for row in rows]


def mean(xs: Vector) -> Value:
    """sum(xs) / len(xs)."""
    count = len(xs)
    return Value(sum(x.data for x in xs) / count, tuple(xs), (1 / count,) * count, "mean")


def inverse_root_mean_square(xs: Vector, epsilon: float) -> Value:
    """(mean of x * x, plus epsilon) ** -0.5."""
    data, count = [x.data for x in xs], len(xs)
    out = power(sum(map(mul, data, data)) / count + epsilon, -0.5)
    slope = -power(out, 3) / count
    return Value(out, tuple(xs), [slope * x for x in data], "inverse_root_mean_square")


def softmax_average(scores: Vector, columns: Matrix) -> list[Value]:
    """[sum(p * v for p, v in zip(softmax(scores), column)) for column in columns]; one node per column."""
    shares = _softmax([score.data for score in scores])

    def average(column: Vector) -> Value:
        data = [value.data for value in column]
        out = sum(map(mul, shares, data))
        d_scores = [share * (x - out) for share, x in zip(shares, data, strict=True)]
        return Value(out, (*scores, *column), d_scores + shares, "softmax_average")

    return [average(column) for column in columns]


def cross_entropy(logits: Vector, target: int) -> Value:
    """-softmax(logits)[target].log()."""
    data = [logit.data for logit in logits]
    largest = max(data)
    log_total = math.log(sum(math.exp(x - largest) for x in data)) + largest
    d_logits = _softmax(data)
    d_logits[target] -= 1
    return Value(log_total - data[target], tuple(logits), d_logits, "cross_entropy")


def gelu(x: Value) -> Value:
    """x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))) / 2, as in `ops.gelu`."""
    scale, cubic, data = math.sqrt(2 / math.pi), 0.044715, x.data
    t = math.tanh(scale * (data + cubic * power(data, 3)))
    slope = (1 + t) / 2 + data / 2 * (1 - t * t) * scale * (1 + 3 * cubic * data * data)
    return Value(data * (1 + t) / 2, (x,), (slope,), "gelu")


def _softmax(data: list[float]) -> list[float]:
    largest = max(data)
    e = [math.exp(x - largest) for x in data]
    total = sum(e)
    return [x / total for x in e]
