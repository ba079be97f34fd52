"""AdamW's update by each kind of kernel, against its reference."""

from __future__ import annotations

import numpy as np
import pytest

from tests.test_catalogue import KERNEL_SETS
from tinygrad_chat.backend import load_kernels
from tinygrad_chat.optim.adamw import adamw_scalars, adamw_update

SCALARS = (0.9, 0.01, 1 - 0.8, 1 - 0.95, 3.0, 1e-6)
LONG = 70_000  # more than two slices


@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("size", "decayed"), [(1, 0), (5, 5), (LONG, 0), (LONG, 12), (LONG, 40_000), (LONG, LONG)])
def test_kernel_agrees_with_the_reference_and_decays_the_first_weights_only(size, decayed, dtype, kernel_set):
    random = np.random.default_rng(0)
    found = [random.normal(size=size).astype(dtype) for _ in range(3)]
    found.append(0.1 + found[1] ** 2)  # a mean of squares
    expected = [array.copy() for array in found]
    for _ in range(2):
        load_kernels(kernel_set)[adamw_update](*found, scalars=SCALARS, decayed=decayed)
        adamw_update(*expected, scalars=SCALARS, decayed=decayed)
    for array, reference in zip(found, expected, strict=True):
        assert array.dtype == dtype
        np.testing.assert_allclose(array, reference, rtol=0, atol=5e-6 if dtype == np.float32 else 1e-12)


def test_the_reference_decays_the_first_weights_only():
    data, zeros = np.ones(4), np.zeros((3, 4))
    adamw_update(data, *zeros, scalars=SCALARS, decayed=3)
    np.testing.assert_array_equal(data, [0.9, 0.9, 0.9, 1.0])


@pytest.mark.parametrize("kernel_set", ["reference", *KERNEL_SETS])
def test_squares_beyond_float32_leave_the_averages_and_the_weights_finite(kernel_set):
    update = load_kernels(kernel_set).get(adamw_update, adamw_update)
    data, mean, square = np.ones(3, np.float32), np.zeros(3, np.float32), np.zeros(3, np.float32)
    for step, size in enumerate((1e20, 1e20, 1.0), start=1):
        gradient = np.array([size, -size, size / 10], np.float32)
        scalars = adamw_scalars(step, 0.1, betas=(0.9, 0.99), weight_decay=0.0, epsilon=1e-8)
        update(data, gradient, mean, square, scalars, decayed=0)
        assert np.isfinite([data, mean, square]).all()
        if step == 1:
            np.testing.assert_allclose(data, [0.9, 1.1, 0.9], rtol=1e-6)
