"""Attention in blocks: longer than a block, longer than is kept, no more than the visible half; and small attention."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from tests.test_catalogue import KERNEL_SETS
from tinygrad_chat import Tensor, ops
from tinygrad_chat.autograd import kernels_of, no_grad, reference_ops
from tinygrad_chat.errors import ShapeError
from tinygrad_chat.ops.attention import attention_weights

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


@pytest.mark.profile("ci")
@pytest.mark.parametrize("most_kept", [0, 1 << 24])
@pytest.mark.parametrize("window", [None, 1, 5, 70, 1000])
@pytest.mark.parametrize(("T", "S"), [(64, 64), (65, 65), (130, 130), (1, 90), (70, 150)])
@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
def test_blocks_join_seamlessly(kernel_set, T, S, window, most_kept, monkeypatch):
    monkeypatch.setattr(kernel, "MAX_KEPT", most_kept)
    with kernels_of(kernel_set):
        expect_reference(draw(T, S), heads=4, window=window)


@pytest.mark.parametrize("most_kept", [0, 1 << 24])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("T", "D"), [(9, 3), (130, 3), (130, 16)])
@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
def test_where_one_key_has_all_the_weight_no_score_has_a_gradient(kernel_set, T, D, dtype, most_kept, monkeypatch):
    """However long the key: not a rounding error times it, as where `along` is taken from d_out and out."""
    monkeypatch.setattr(kernel, "MAX_KEPT", most_kept)
    query, key, value = (array.astype(dtype) for array in draw(T, T, heads=2, D=D))
    key *= 1e8
    assert ((attention_weights(query, key, heads=2) == 0).sum(axis=-1) == T - 1).all()
    with kernels_of(kernel_set):
        _, d_query, d_key, d_value = value_and_gradients([query, key, value], heads=2)
    assert not d_query.any()
    assert not d_key.any()
    assert d_value.any()


@pytest.mark.profile("ci")
@pytest.mark.parametrize("window", [None, 70])
@pytest.mark.parametrize("T", [130, kernel.LONG + 88])
@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
def test_blocks_are_right_in_float32_and_at_every_length_of_block(kernel_set, T, window):
    with kernels_of(kernel_set):
        expect_reference(draw(T, T), dtype=np.float32, tolerance=2e-5, heads=4, window=window)


@pytest.mark.profile("ci")
@pytest.mark.parametrize("most_kept", [0, 1 << 24])
@pytest.mark.parametrize("window", [None, 5, 70])
@pytest.mark.parametrize(("T", "S"), [(65, 65), (kernel.LONG + 88, kernel.LONG + 88), (1, 90), (70, 150)])
@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
def test_documents_begin_and_end_anywhere_in_a_block(kernel_set, T, S, window, most_kept, monkeypatch):
    monkeypatch.setattr(kernel, "MAX_KEPT", most_kept)
    begins = np.random.default_rng(1).random((2, S)) < 0.03
    starts = np.maximum.accumulate(np.where(begins, np.arange(S), 0), axis=1)[:, S - T :]
    with kernels_of(kernel_set):
        expect_reference(draw(T, S), heads=4, window=window, document_starts=starts)


@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
def test_a_document_is_computed_as_if_it_were_alone(kernel_set):
    arrays, cut = draw(130, 130), 83
    starts = np.where(np.arange(130) < cut, 0, cut) * np.ones((2, 1), int)
    with kernels_of(kernel_set):
        packed = value_and_gradients(arrays, heads=4, document_starts=starts)
        for part in (slice(0, cut), slice(cut, 130)):
            nodes = [Tensor(array[:, part]) for array in arrays]
            out = ops.attention(*nodes, heads=4)
            out.backward(np.random.default_rng(1).normal(size=packed[0].shape)[:, part])
            for found, alone in zip(packed, [out.data, *(node.grad for node in nodes)], strict=True):
                np.testing.assert_allclose(found[:, part], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
def test_blocks_skip_keys_that_no_document_in_them_reaches(kernel_set, monkeypatch):
    computed = []
    monkeypatch.setattr(kernel, "_hide_other_documents", lambda scores, starts: computed.append(scores.shape[-1]))
    starts = np.repeat(np.array([[0, 128]]), 128, axis=1).repeat(2, axis=0)
    with kernels_of(kernel_set):
        ops.attention(*map(Tensor, draw(256, 256)), heads=4, document_starts=starts)
    assert computed == [64, 128, 64, 128]


@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
def test_each_query_needs_a_document(kernel_set):
    with kernels_of(kernel_set), pytest.raises(ShapeError, match="document_starts"):
        ops.attention(*map(Tensor, draw(5, 7)), heads=4, document_starts=np.zeros((2, 7), int))


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


@pytest.mark.profile("ci")
@pytest.mark.parametrize("width", ["f4", "f8"])
@pytest.mark.skipif("numba" not in KERNEL_SETS, reason="needs Numba")
def test_rows_of_a_cache_are_attended_to_as_each_alone_in_any_number_of_threads(width, monkeypatch):
    module = importlib.import_module("tinygrad_chat.kernels.numba.small_attention")
    monkeypatch.setattr(module, "WORTH_THREADS", 1)
    random, starts = np.random.default_rng(0), np.array([[0], [3], [17], [5], [0]])
    query = random.normal(size=(5, 1, 12)).astype(width)
    room = random.normal(size=(2, 5, 30, 6)).astype(width)  # for more tokens than there are
    key, value = room[:, :, :18]
    found = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(module, "product_threads", lambda threads=threads: threads)
        with kernels_of("numba"):
            found.append(ops.attention(Tensor(query), key, value, heads=4, document_starts=starts).data)
            for row in range(5):
                one = slice(row, row + 1)
                alone = ops.attention(Tensor(query[one]), key[one], value[one], heads=4, document_starts=starts[one])
                np.testing.assert_array_equal(found[-1][one], alone.data)
    np.testing.assert_array_equal(found[1:], found[:1] * 2)
    with reference_ops():
        expected = ops.attention(Tensor(query), key, value, heads=4, document_starts=starts).data
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-5)
