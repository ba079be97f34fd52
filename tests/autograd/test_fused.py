"""Fused scalar nodes equal the plain expressions that their docstrings state, in value and every gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_chat.autograd import fused
from tinygrad_chat.autograd.value import Value

numbers = st.floats(-3, 3)
vectors = st.lists(numbers, min_size=1, max_size=5)


def plain_dot(xs: list[Value], ys: list[Value]) -> Value:
    return sum((x * y for x, y in zip(xs, ys, strict=True)), Value(0.0))


def plain_mean(xs: list[Value]) -> Value:
    return sum(xs, Value(0.0)) / len(xs)


def plain_softmax(xs: list[Value]) -> list[Value]:
    exponentials = [x.exp() for x in xs]
    total = sum(exponentials, Value(0.0))
    return [e / total for e in exponentials]


def plain_gelu(x: Value) -> Value:
    return x * ((math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)).tanh() + 1) / 2


Function = Callable[[list[Value]], Any]
PAIRS: dict[str, tuple[Function, Function]] = {
    "matrix_vector": (
        lambda xs: fused.matrix_vector([xs, xs[::-1]], xs),
        lambda xs: [plain_dot(xs, xs), plain_dot(xs[::-1], xs)],
    ),
    "mean": (fused.mean, plain_mean),
    "inverse_root_mean_square": (
        lambda xs: fused.inverse_root_mean_square(xs, 0.1),
        lambda xs: (plain_mean([x * x for x in xs]) + 0.1) ** -0.5,
    ),
    "softmax_average": (
        lambda xs: fused.softmax_average(xs, [xs, xs[::-1]]),
        lambda xs: [plain_dot(plain_softmax(xs), xs), plain_dot(plain_softmax(xs), xs[::-1])],
    ),
    "cross_entropy": (
        lambda xs: fused.cross_entropy(xs, len(xs) // 2),
        lambda xs: -plain_softmax(xs)[len(xs) // 2].log(),
    ),
    "gelu": (lambda xs: fused.gelu(xs[0]), lambda xs: plain_gelu(xs[0])),
}


def value_and_gradients(function: Function, data: list[float]) -> list[float]:
    xs = [Value(x) for x in data]
    out = function(xs)
    outs = out if isinstance(out, list) else [out]
    total = sum((y * weight for weight, y in enumerate(outs, start=1)), Value(0.0))
    total.backward()
    return [*(y.data for y in outs), *(x.grad for x in xs)]


@pytest.mark.parametrize("name", PAIRS)
@given(vectors)
def test_a_fused_node_equals_its_plain_expression(name: str, data: list[float]):
    one, many = PAIRS[name]
    assert value_and_gradients(one, data) == pytest.approx(value_and_gradients(many, data), rel=1e-10, abs=1e-10)


def test_every_fused_function_is_tested():
    public = {name for name, thing in vars(fused).items() if getattr(thing, "__module__", "") == fused.__name__}
    assert {name for name in public if not name.startswith("_") and callable(vars(fused)[name])} == PAIRS.keys()


def test_extreme_logits_stay_numbers():
    xs = [Value(1e5), Value(-1e5)]
    loss = fused.cross_entropy(xs, 1)
    loss.backward()
    assert loss.data == 2e5
    assert [x.grad for x in xs] == [1.0, -1.0]
    assert [average.data for average in fused.softmax_average(xs, [[Value(2.0), Value(3.0)]])] == [2.0]
