"""Attention in blocks: longer than a block, longer than is kept, and no more than the visible half."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from tinygrad_chat import Tensor, ops
from tinygrad_chat.autograd import reference_ops

kernel = importlib.import_module("tinygrad_chat.kernels.numpy.attention")  # the module, not the function in it


def value_and_gradients(arrays, **options):
    nodes = [Tensor(array) for array in arrays]
    out = ops.attention(*nodes, **options)
    out.backward(np.random.default_rng(1).normal(size=out.shape))
    return [out.data, *(node.grad for node in nodes)]


def expect_reference(arrays, **options):
    found = value_and_gradients(arrays, **options)
    with reference_ops():
        expected = value_and_gradients(arrays, **options)
    for array, reference in zip(found, expected, strict=True):
        np.testing.assert_allclose(array, reference, rtol=1e-9, atol=1e-9)


def draw(T, S, *, heads=4, shared=2, D=3):
    random = np.random.default_rng(0)
    return [random.normal(size=(2, length, number * D)) for length, number in ((T, heads), (S, shared), (S, shared))]


@pytest.mark.parametrize("longest_kept", [0, 512])
@pytest.mark.parametrize("window", [None, 1, 5, 70, 1000])
@pytest.mark.parametrize(("T", "S"), [(64, 64), (65, 65), (130, 130), (1, 90), (70, 150)])
def test_blocks_join_seamlessly(T, S, window, longest_kept, monkeypatch):
    monkeypatch.setattr(kernel, "LONGEST_KEPT", longest_kept)
    expect_reference(draw(T, S), heads=4, window=window)


@pytest.mark.parametrize("window", [None, 5])
def test_attention_to_everything_is_one_block(window):
    expect_reference(draw(70, 75), heads=4, causal=False, window=window)


def test_the_masked_half_is_never_computed(monkeypatch):
    computed = []
    exponentiate = kernel._exponentiate

    def watched(scores, largest):
        computed.append(scores.size)
        exponentiate(scores, largest)

    monkeypatch.setattr(kernel, "_exponentiate", watched)
    T = 8 * kernel.BLOCK
    value_and_gradients(draw(T, T), heads=4)
    square = 2 * 4 * T * T
    assert sum(computed) < 0.57 * square
    assert max(computed) <= square / 8
