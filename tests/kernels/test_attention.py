"""Attention in blocks: longer than a block, longer than is kept, no more than the visible half; and small attention."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from tests.test_catalogue import KERNEL_SETS
from tinygrad_chat import Tensor, ops
from tinygrad_chat.autograd import kernels_of, no_grad, reference_ops

kernel = importlib.import_module("tinygrad_chat.kernels.numpy.attention")  # the module, not the function in it


def value_and_gradients(arrays, **options):
    nodes = [Tensor(array) for array in arrays]
    out = ops.attention(*nodes, **options)
    out.backward(np.random.default_rng(1).normal(size=out.shape))
    return [out.data, *(node.grad for node in nodes)]


def expect_reference(arrays, *, dtype: type = np.float64, tolerance=1e-9, **options):
    found = value_and_gradients([array.astype(dtype) for array in arrays], **options)
    with reference_ops():
        expected = value_and_gradients(arrays, **options)
    for array, reference in zip(found, expected, strict=True):
        assert array.dtype == dtype
        np.testing.assert_allclose(array, reference, rtol=tolerance, atol=tolerance)


def draw(T, S, *, heads=4, shared=2, D=3):
    random = np.random.default_rng(0)
    return [random.normal(size=(2, length, number * D)) for length, number in ((T, heads), (S, shared), (S, shared))]


@pytest.mark.parametrize("most_kept", [0, 1 << 24])
@pytest.mark.parametrize("window", [None, 1, 5, 70, 1000])
@pytest.mark.parametrize(("T", "S"), [(64, 64), (65, 65), (130, 130), (1, 90), (70, 150)])
@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
def test_blocks_join_seamlessly(kernel_set, T, S, window, most_kept, monkeypatch):
    monkeypatch.setattr(kernel, "MOST_KEPT", most_kept)
    with kernels_of(kernel_set):
        expect_reference(draw(T, S), heads=4, window=window)


@pytest.mark.parametrize("window", [None, 70])
@pytest.mark.parametrize("T", [130, kernel.LONG + 88])
@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
def test_blocks_are_right_in_float32_and_at_every_length_of_block(kernel_set, T, window):
    with kernels_of(kernel_set):
        expect_reference(draw(T, T), dtype=np.float32, tolerance=2e-5, heads=4, window=window)


@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
def test_a_window_beyond_all_positions_takes_no_memory(kernel_set):
    with kernels_of(kernel_set):
        expect_reference(draw(70, 70), heads=4, window=10**12)


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
def test_attention_to_everything_is_one_block(kernel_set, window):
    with kernels_of(kernel_set):
        expect_reference(draw(70, 75), heads=4, causal=False, window=window)


@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
def test_evaluation_keeps_no_weights_and_computes_the_same(kernel_set):
    query, key, value = draw(130, 130)
    with kernels_of(kernel_set):
        expected = ops.attention(Tensor(query), key, value, heads=4).data
        with no_grad():
            np.testing.assert_array_equal(ops.attention(Tensor(query), key, value, heads=4).data, expected)


def test_the_masked_half_is_never_computed(monkeypatch):
    computed = []
    weigh = kernel._weigh

    def watched(scores, mask, sums):
        computed.append(scores.size)
        weigh(scores, mask, sums)

    monkeypatch.setattr(kernel, "_weigh", watched)
    T = 8 * kernel.BLOCK
    with kernels_of("numpy"):
        value_and_gradients(draw(T, T), heads=4)
    square = 2 * 4 * T * T
    assert sum(computed) < 0.57 * square
    assert max(computed) <= square / 8
