"""Compiled kernels may add up in any order, but lose no digits by it: where a difference is exact, it stays so."""

from __future__ import annotations

import importlib
import pkgutil

import numpy as np
import pytest

pytest.importorskip("numba")

from numba.core.dispatcher import Dispatcher

from tinygrad_chat import Tensor, ops
from tinygrad_chat.autograd import kernels_of, reference_ops
from tinygrad_chat.kernels import numba as package

random = np.random.default_rng(0)
MODULES = [
    importlib.import_module(f"{package.__name__}.{each.name}") for each in pkgutil.iter_modules(package.__path__)
]
COMPILED = [each for module in MODULES for each in vars(module).values() if isinstance(each, Dispatcher)]


def results(function, *arrays, d_out=None):
    """Value and gradients by compiled kernels in float32, and by the reference in float64."""
    found = []
    for kernels, dtype in ((kernels_of("numba"), np.float32), (reference_ops(), np.float64)):
        nodes = [Tensor(x.astype(dtype)) for x in arrays]
        with kernels:
            out = function(*nodes)
            out.backward(None if d_out is None else d_out.astype(dtype))
        found.append([out.data, *(node.grad for node in nodes)])
    return zip(*found, strict=True)


def test_no_kernel_may_do_more_than_add_in_another_order():
    """To suppose that nothing is nan or infinite, or to approximate, is not among what the compiler may."""
    assert len(COMPILED) > 10
    for kernel in COMPILED:
        assert set(kernel.targetoptions["fastmath"]) <= {"reassoc", "contract", "nsz"}, kernel.py_func.__qualname__


def test_a_number_that_all_logits_share_costs_no_digit():
    """They are multiples of 1/64, so that every difference is exact, beside 4096 too; but not log(sum) + 4096."""
    logits = np.round(random.normal(size=(40, 50)) * 64) / 64
    targets = random.integers(0, 50, 40)
    for shift in (0, 4096, -4096):
        for found, expected in results(lambda x: ops.cross_entropy(x, targets), logits + shift):
            np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-8)


def test_a_number_that_all_scores_of_a_query_share_costs_no_digit():
    """Scores near 4096, in steps of 1/64: the largest is taken out before the exponential."""
    key = np.round(random.normal(size=(1, 30, 4)) * 8) / 8
    key[..., 0] = 256
    query, value = np.ones((1, 30, 4)), random.normal(size=(1, 30, 4))
    query[..., 0] = 16
    found, expected = next(results(lambda *x: ops.attention(*x, heads=1), query, key, value, d_out=np.ones((1, 30, 4))))
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


def test_rows_far_from_0_keep_what_float32_knows_of_them():
    """Of 1000 and a bit, float32 knows the bit to 6e-5; as a mean of squares less a squared mean it would be 0.06."""
    rows, gain, d_out = (
        1000 + np.round(random.normal(size=(20, 64)) * 64) / 64,
        np.ones(64),
        random.normal(size=(20, 64)),
    )
    for found, expected in results(ops.layernorm, rows, gain, d_out=d_out):
        np.testing.assert_allclose(found, expected, rtol=0, atol=5e-4 * np.abs(expected).max())
