"""Several steps of scalar arithmetic as one node. Standard library only.

A dot product of 16 pairs is 31 nodes of `+` and `*`, or one node whose rule states all 32 derivatives at once. The
numbers are the same; there is less to create, to keep and to sweep. Each function here equals the plain expression
in its first line, and the tests hold it to that.

The gradient of `v` is `d_v`; a rule returns one for each parent, in the parents' order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import mul

from tinygrad_chat.autograd.value import Value

Vector = Sequence[Value]
Matrix = Sequence[Vector]


def matrix_vector(rows: Matrix, xs: Vector) -> list[Value]:
    """[sum(weight * x for weight, x in zip(row, xs)) for row in rows]; one node a row."""
    x_data = [x.data for x in xs]

    def product(row: Vector) -> Value:
        row_data = [weight.data for weight in row]

        def rule(d_out: float) -> list[float]:
            return [d_out * x for x in x_data] + [d_out * weight for weight in row_data]

        return Value(sum(map(mul, row_data, x_data)), (*row, *xs), rule)

    return [product(row) for row in rows]


def mean(xs: Vector) -> Value:
    """sum(xs) / len(xs)."""
    count = len(xs)
    return Value(sum(x.data for x in xs) / count, tuple(xs), lambda d_out: [d_out / count] * count)


def inverse_root_mean_square(xs: Vector, epsilon: float) -> Value:
    """(mean of x * x, plus epsilon) ** -0.5."""
    data, count = [x.data for x in xs], len(xs)
    out = (sum(map(mul, data, data)) / count + epsilon) ** -0.5

    def rule(d_out: float) -> list[float]:
        slope = -d_out * out**3 / count
        return [slope * x for x in data]

    return Value(out, tuple(xs), rule)


def softmax_average(scores: Vector, columns: Matrix) -> list[Value]:
    """[sum(p * v for p, v in zip(softmax(scores), column)) for column in columns]; one node a column."""
    shares = _softmax([score.data for score in scores])

    def average(column: Vector) -> Value:
        column_data = [value.data for value in column]
        out = sum(map(mul, shares, column_data))

        def rule(d_out: float) -> list[float]:
            d_column = [d_out * share for share in shares]
            return [d * (value - out) for d, value in zip(d_column, column_data, strict=True)] + d_column

        return Value(out, (*scores, *column), rule)

    return [average(column) for column in columns]


def cross_entropy(logits: Vector, target: int) -> Value:
    """-softmax(logits)[target].log()."""
    data = [logit.data for logit in logits]
    largest = max(data)
    log_total = math.log(sum(math.exp(x - largest) for x in data)) + largest

    def rule(d_out: float) -> list[float]:
        d_logits = [d_out * p for p in _softmax(data)]
        d_logits[target] -= d_out
        return d_logits

    return Value(log_total - data[target], tuple(logits), rule)


def gelu(x: Value) -> Value:
    """x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))) / 2, as in `ops.gelu`."""
    scale, cubic, data = math.sqrt(2 / math.pi), 0.044715, x.data
    t = math.tanh(scale * (data + cubic * data**3))
    slope = (1 + t) / 2 + data / 2 * (1 - t * t) * scale * (1 + 3 * cubic * data * data)
    return Value(data * (1 + t) / 2, (x,), lambda d_out: (d_out * slope,))


def _softmax(data: list[float]) -> list[float]:
    largest = max(data)
    e = [math.exp(x - largest) for x in data]
    total = sum(e)
    return [x / total for x in e]
