"""Every op at 0, at tiny and huge numbers, at infinities and nan and in the tails: value and gradient are PyTorch's.

Where they are not, `ON_PURPOSE` says what they are instead, and so does the op's docstring.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tests.catalogue import CATALOGUE, Case
from tests.test_catalogue import KERNEL_SETS, value_and_gradients
from tinygrad_chat import Tensor, ops
from tinygrad_chat.autograd import kernels_of

FLOATS = [np.float64, np.float32, np.float16]
MOVED = {"where", "reshape", "transpose", "index", "split", "concatenate", "stack", "embedding"}
"""Ops that compute nothing; what `where` does beside a nan is in test_corners.py."""
ELEMENTWISE = ["negative", "abs", "exp", "log", "sqrt", "tanh", "sigmoid", "relu", "squared_relu", "gelu", "clip"]
BINARY = ["add", "subtract", "multiply", "divide", "power"]

every_type = pytest.mark.parametrize("dtype", FLOATS, ids=lambda dtype: dtype.__name__)
every_set = pytest.mark.parametrize("kernel_set", ["reference", *KERNEL_SETS])


def numbers(dtype: Any) -> np.ndarray:
    """Both zeros, tiny and huge numbers, the tails, what is not finite."""
    limits, tails = np.finfo(dtype), [0.5, 1, 3, 5, 9, 12, 20, 60, 88, 89, 100, 250, 700, 750]
    sizes = [0, limits.smallest_subnormal, limits.tiny, limits.eps, *tails, 1.5 * limits.max**0.5, limits.max, np.inf]
    return np.array([*sizes, *(-size for size in sizes), np.nan]).astype(dtype)


def pairs(dtype: Any) -> list[np.ndarray]:
    limits = np.finfo(dtype)
    some = np.array([0, limits.tiny, 0.5, 1, 2, 3, limits.max, np.inf]).astype(dtype)
    return [each.ravel() for each in np.meshgrid(*[np.concatenate([some, -some, [dtype(np.nan)]])] * 2)]


def rows(dtype: Any, longest: float) -> Iterator[np.ndarray]:
    """Rows of four numbers no larger than `longest`, unless they are infinite."""
    tiny, inf, nan = np.finfo(dtype).tiny, np.inf, np.nan
    for row in [
        [0, 0, 0, 0],
        [-0.0, 0, -0.0, 0],
        [2, 2, 2, 2],
        [1, 2, 3, 4],
        [tiny, tiny, tiny, tiny],
        [90, -90, 0, 1],
        [-50, 0, 50, 1],
        [-200, -100, 0, 150],
        [300, -300, 0, 20],
        [longest, 1, 2, 3],
        [inf, 1, 2, 3],
        [-inf, 1, 2, 3],
        [inf, -inf, 1, 2],
        [-inf, -inf, -inf, -inf],
        [nan, 1, 2, 3],
        [1, 2, 3, nan],
    ]:
        array = np.array([row], np.float64)
        if np.abs(array[np.isfinite(array)]).max(initial=0) <= longest:
            yield array.astype(dtype)


def turned(row: np.ndarray, rms: float | None) -> Case:
    cosine, sine = (angles.astype(row.dtype) for angles in ops.rotary_angles(2, 4))
    return Case((np.repeat(row, 2, axis=0),), {"cosine": cosine, "sine": sine, "rms": rms})


def attended(row: np.ndarray, causal: bool) -> Case:
    """The numbers in a query and in the last key; a minus infinity alone, or a row of them, has no weights at all."""
    ones = np.ones_like(row)
    case = (np.concatenate(x)[None] for x in ([ones, row], [ones, ones / 2], [ones, 2 * ones]))
    return Case(tuple(case), {"heads": 2, "causal": causal, "window": None})


LABEL, ALONG = np.array([1]), {"axis": -1, "keepdims": False}
ROWS: dict[str, list[Callable[[np.ndarray], Case]]] = {
    "sum": [lambda row: Case((row,), ALONG)],
    "mean": [lambda row: Case((row,), ALONG)],
    "max": [lambda row: Case((row,), ALONG)],
    "min": [lambda row: Case((row,), ALONG)],
    "var": [lambda row: Case((row,), {**ALONG, "correction": 1})],
    "std": [lambda row: Case((row,), {**ALONG, "correction": 0})],
    "softmax": [lambda row: Case((row,), {"axis": -1})],
    "log_softmax": [lambda row: Case((row,), {"axis": -1})],
    "layernorm": [lambda row: Case((row, np.ones(4, row.dtype), np.zeros(4, row.dtype)), {"epsilon": 1e-5})],
    "rmsnorm": [
        lambda row: Case((row,), {"epsilon": 1e-5}),
        lambda row: Case((row, np.ones(4, row.dtype)), {"epsilon": 1e-5}),
    ],
    "add_layernorm": [lambda row: Case((row, np.zeros_like(row), np.ones(4, row.dtype)), {"epsilon": 1e-5})],
    "add_rmsnorm": [lambda row: Case((row, np.zeros_like(row), np.ones(4, row.dtype)), {"epsilon": 1e-5})],
    "cross_entropy": [
        lambda row: Case((row, LABEL)),
        lambda row: Case((row, LABEL), {"soft_cap": 5.0}),
        lambda row: Case((row, np.array([-1])), {"token_count": 1}),
        lambda row: Case((row, np.array([-1])), {"token_count": 1, "soft_cap": 5.0}),
    ],
    "rotary": [lambda row: turned(row, None), lambda row: turned(row, 1.0)],
    "gated_sum": [lambda row: Case((np.ones_like(row), np.ones_like(row), row), {"reach": 3.0})],
    "smear": [
        lambda row: Case((np.ones((1, 2, 4), row.dtype), row / 4, np.ones(1, row.dtype)), {"before": None}),
    ],
    "scaled_sum": [
        lambda row: Case((row, row[:, ::-1].copy(), *np.ones((2, 2), row.dtype)), {"layer": 1, "subtract": True})
    ],
    "dropout": [lambda row: Case((row,), {"rate": 0.5, "seed": 3})],
    "swiglu": [lambda row: Case((row, np.ones_like(row))), lambda row: Case((np.ones_like(row), row))],
    "linear": [lambda row: Case((row, np.ones((2, 4), row.dtype), np.zeros(2, row.dtype)))],
    "linears": [lambda row: Case((row, *np.ones((2, 2, 4), row.dtype), *np.zeros((2, 2), row.dtype)))],
    "matmul": [lambda row: Case((row, np.ones((4, 2), row.dtype)))],
    "attention": [lambda row: attended(row, True), lambda row: attended(row, False)],
}
SQUARED = {"var", "std", "layernorm", "rmsnorm", "add_layernorm", "add_rmsnorm", "rotary"}


def longest(name: str, dtype: Any) -> float:
    """What a row may hold so that nothing in between overflows: ops compute in their arrays' own type."""
    return {np.float16: 100.0, np.float32: 1e15, np.float64: 1e150}[dtype] if name in SQUARED else 1e4


Expected = list[np.ndarray]


def abs_of_nan_has_a_slope_of_nan(case: Case, expected: Expected) -> None:
    expected[1][np.isnan(case.inputs[0])] = np.nan


def gelu_is_flat_far_out(case: Case, expected: Expected) -> None:
    x = case.inputs[0]
    expected[1][x > 10], expected[1][x < -10] = 1, 0


def exponents_of_what_is_not_positive_have_no_gradient(case: Case, expected: Expected) -> None:
    expected[2][case.inputs[0] <= 0] = 0


def a_row_that_does_not_count_has_no_gradient(case: Case, expected: Expected) -> None:
    expected[1][case.inputs[1] == -1] = 0


ON_PURPOSE: dict[str, Callable[[Case, Expected], None]] = {
    "abs": abs_of_nan_has_a_slope_of_nan,
    "gelu": gelu_is_flat_far_out,
    "power": exponents_of_what_is_not_positive_have_no_gradient,
    "cross_entropy": a_row_that_does_not_count_has_no_gradient,
}


def compare_with_pytorch(name: str, case: Case, kernel_set: str, *, digits_of: float, absolute: float) -> None:
    """A value has all its digits but for a few, unless it is below the smallest normal number, or a sum whose digits
    cancel; so may a gradient be."""
    torch = pytest.importorskip("torch")
    entry, dtype = CATALOGUE[name], case.inputs[0].dtype
    tensors = [torch.tensor(x, requires_grad=x.dtype.kind == "f") for x in case.inputs]
    out = entry.torch(*tensors, **case.options)
    out.backward(torch.ones_like(out))
    expected = [out.detach().numpy().copy(), *(t.grad.numpy().copy() for t in tensors if t.requires_grad)]
    ON_PURPOSE.get(name, lambda case, expected: None)(case, expected)
    with kernels_of(kernel_set), np.errstate(all="ignore"):
        found = value_and_gradients(entry, case, np.ones(out.shape, dtype))
    limits = np.finfo(dtype)
    for number, (mine, theirs) in enumerate(zip(found, expected, strict=True)):
        assert mine.dtype == dtype
        least = limits.tiny + (absolute * limits.eps if number or name == "gelu" or name in ROWS else 0)
        np.testing.assert_allclose(
            mine.astype(np.float64),
            theirs.astype(np.float64),
            rtol=digits_of * limits.eps,
            atol=float(least),
            err_msg=f"{name} of {case.inputs}: {'gradient' if number else 'value'} {number}",
        )


@every_set
@every_type
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_a_function_of_one_number_is_pytorchs(name, dtype, kernel_set):
    for options in [{"min": -1.0, "max": 1.0}, {"min": 0.0}, {"max": 0.0}] if name == "clip" else [{}]:
        case = Case((numbers(dtype),), options)
        compare_with_pytorch(name, case, kernel_set, digits_of=8, absolute=32 if name == "gelu" else 8)


@every_type
@pytest.mark.parametrize("name", BINARY)
def test_arithmetic_is_pytorchs(name, dtype):
    compare_with_pytorch(name, Case(tuple(pairs(dtype))), "reference", digits_of=8, absolute=0)


@pytest.mark.profile("ci")
@every_set
@every_type
@pytest.mark.parametrize("name", ROWS)
def test_a_function_of_rows_is_pytorchs(name, dtype, kernel_set):
    if name == "rotary" and dtype == np.float16:
        pytest.skip("PyTorch's side turns complex numbers, of which it has none this small")
    for make in ROWS[name]:
        for row in rows(dtype, longest(name, dtype)):
            if name == "attention" and np.isinf(row).any():
                continue  # what only minus infinities weigh is nan here and 0 in some of PyTorch's kernels
            compare_with_pytorch(name, make(row), kernel_set, digits_of=64, absolute=256)


def test_every_op_is_looked_at():
    assert {*MOVED, *ELEMENTWISE, *BINARY, *ROWS} == CATALOGUE.keys()


# Without PyTorch.

inf, nan = np.inf, np.nan
PLAIN: dict[str, tuple[Any, list[float], list[float], list[float]]] = {
    # x -> value, gradient
    "sigmoid": (ops.sigmoid, [-inf, -50, -17, 0, 17, inf], [0, 1.92874985e-22, 4.13993755e-08, 0.5, 1, 1], []),
    "relu": (ops.relu, [-inf, -1, -0.0, nan, inf], [0, 0, 0, nan, inf], [0, 0, 0, 1, 1]),
    "sqrt": (ops.sqrt, [0, -1, inf], [0, nan, inf], [inf, nan, 0]),
    "log": (ops.log, [0, -0.0, -2, inf], [-inf, -inf, nan, inf], [inf, -inf, -0.5, 0]),
    "abs": (ops.abs, [-inf, -0.0, nan], [inf, 0, nan], [-1, 0, nan]),
    "gelu": (ops.gelu, [-1e30, 1e30, inf, nan], [0, 1e30, inf, nan], [0, 1, 1, nan]),
    "x ** 0.5": (lambda x: x**0.5, [0, -1, inf], [0, nan, inf], [inf, nan, 0]),
    "x ** 0": (lambda x: x**0, [0, inf, nan], [1, 1, 1], [0, 0, 0]),
    "1 / x": (lambda x: 1 / x, [0, -0.0, inf], [inf, -inf, 0], [-inf, -inf, 0]),
}


@every_set
@pytest.mark.parametrize("name", PLAIN)
def test_plain_values_and_gradients(name, kernel_set):
    function, given, value, gradient = PLAIN[name]
    x = Tensor(np.array(given, np.float32))
    with kernels_of(kernel_set), np.errstate(all="ignore"):
        out = function(x)
        out.backward(np.ones(x.shape))
    np.testing.assert_allclose(out.data, np.array(value, np.float32), rtol=1e-6)
    if gradient:
        np.testing.assert_allclose(x.grad, np.array(gradient, np.float32), rtol=1e-6, atol=1e-30)


@every_set
def test_the_logarithm_of_a_small_sigmoid_has_its_gradient(kernel_set):
    x = Tensor(np.array([-20.0, -50.0, -80.0], np.float32))
    with kernels_of(kernel_set):
        ops.log(ops.sigmoid(x)).sum().backward()
    np.testing.assert_allclose(x.grad, 1, rtol=1e-6)


@every_set
def test_gates_of_very_negative_logits_keep_their_digits(kernel_set):
    nothing, one, logit = np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32), np.float32(-30)
    with kernels_of(kernel_set):
        out = ops.gated_sum(Tensor(nothing), one, np.full((1, 1), logit), reach=1.0)
    np.testing.assert_allclose(out.data, np.exp(logit), rtol=1e-6)
