"""Functions of one number, over all the range where they bend and far beyond: values and slopes of every kernel."""

from __future__ import annotations

import numpy as np
import pytest

from tests.test_catalogue import KERNEL_SETS
from tinygrad_chat import Tensor, ops
from tinygrad_chat.autograd import Operation, kernels_of, reference_ops

NUMBERS = np.concatenate([np.linspace(-12, 12, 4801), [-1e4, -30, 30, 1e4]])
TOLERANCE = {np.float32: 1e-6, np.float64: 1e-12}  # relative to numbers above 1, absolute below


def value_and_slope(op: Operation, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    node = Tensor(x)
    out = op(node)
    out.backward(np.ones_like(x))
    return out.data, node.grad


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("op", [ops.gelu, ops.squared_relu], ids=lambda op: op.name)
@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
def test_value_and_slope_are_right_in_the_middle_and_in_both_tails(kernel_set: str, op: Operation, dtype: type):
    x = NUMBERS.astype(dtype)
    with kernels_of(kernel_set), np.errstate(over="ignore"):
        found = value_and_slope(op, x)
    with reference_ops():
        expected = value_and_slope(op, x.astype(np.float64))
    for array, reference in zip(found, expected, strict=True):
        np.testing.assert_allclose(array, reference, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
