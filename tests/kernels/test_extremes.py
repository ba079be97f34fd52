"""Numbers near the end of float32: what the reference's forward makes of them, each kind of kernel's makes too."""

from __future__ import annotations

import numpy as np
import pytest

from tests.test_catalogue import KERNEL_SETS
from tinygrad_chat import Tensor, ops
from tinygrad_chat.autograd import kernels_of

row = np.array([[1e30, -2e29, 3.0, 0.0]], np.float32)
nothing = np.array([[np.nan, 1.0, -np.inf, np.inf]], np.float32)
gain = np.ones(4, np.float32)


@pytest.mark.parametrize("kernel_set", ["reference", *KERNEL_SETS])
def test_rows_whose_squares_overflow_are_normalised_to_zero(kernel_set):
    with kernels_of(kernel_set), np.errstate(over="ignore"):
        np.testing.assert_array_equal(ops.layernorm(Tensor(row), gain).data, np.zeros_like(row))
        np.testing.assert_array_equal(ops.rmsnorm(Tensor(row), gain).data, np.zeros_like(row))


@pytest.mark.parametrize("kernel_set", ["reference", *KERNEL_SETS])
def test_gelu_of_a_huge_number_is_that_number_or_zero(kernel_set):
    x = np.array([1e12, -1e12, 30, -30], np.float32)
    with kernels_of(kernel_set), np.errstate(all="ignore"):
        np.testing.assert_array_equal(ops.gelu(Tensor(x)).data, np.maximum(x, 0))


@pytest.mark.parametrize("kernel_set", ["reference", *KERNEL_SETS])
def test_what_is_no_number_stays_none(kernel_set):
    with kernels_of(kernel_set), np.errstate(all="ignore"):
        assert np.isnan(ops.layernorm(Tensor(nothing), gain).data).all()
        assert np.isnan(ops.gelu(Tensor(nothing)).data[0, 0])
        assert np.isnan(ops.softmax(Tensor(nothing)).data).all()
        assert np.isnan(ops.log_softmax(Tensor(nothing)).data).all()
        assert np.isnan(ops.cross_entropy(Tensor(nothing), np.array([1])).item())
        out = ops.attention(*(Tensor(np.repeat(nothing[None], 2, axis=1)),) * 3, heads=2).data
        assert np.isnan(out[..., :2]).all()  # the head that holds it


@pytest.mark.parametrize("kernel_set", ["reference", *KERNEL_SETS])
def test_softmax_beside_a_huge_number_is_that_of_the_differences(kernel_set):
    alike = np.full(3, 1e30, np.float32)
    with kernels_of(kernel_set), np.errstate(all="ignore"):
        np.testing.assert_allclose(ops.softmax(Tensor(alike)).data, np.full(3, 1 / 3), rtol=1e-6)
        np.testing.assert_allclose(ops.log_softmax(Tensor(alike)).data, np.full(3, -np.log(3)), rtol=1e-6)
        np.testing.assert_array_equal(ops.softmax(Tensor(row)).data, [[1, 0, 0, 0]])
        np.testing.assert_array_equal(ops.log_softmax(Tensor(row)).data, row - row[0, 0])
