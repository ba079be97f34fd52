"""Products in tiles, and attention that is made of them, against NumPy's and the reference op."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from tinygrad_chat.autograd import kernels_of, no_grad

pytest.importorskip("numba")

from tests.kernels.test_attention import draw, expect_reference, value_and_gradients
from tinygrad_chat.kernels.numba import threads as dividing
from tinygrad_chat.kernels.numba import tiled_attention as tiled
from tinygrad_chat.kernels.numba.tiles import multiply, transpose

needs_wide_vectors = pytest.mark.skipif(not tiled.HAS_WIDE_VECTORS, reason="this processor has no vectors of 512 bits")


@pytest.fixture(autouse=True)
def never_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tiles take what a smaller kernel would."""
    monkeypatch.setattr(importlib.import_module("tinygrad_chat.kernels.numba.attention"), "SMALL", 0)


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.profile("ci")
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("M", "K", "N"), [(16, 1, 16), (32, 17, 48), (16, 64, 64), (64, 5, 208)])
def test_products_in_tiles(M: int, K: int, N: int, transposed: bool):
    a, b, out = random(K, M).T if transposed else random(M, K), random(K, N + 3)[:, :N], random(M, N + 5)[:, :N]
    before = out.copy()
    multiply(a, b, out, True)
    np.testing.assert_allclose(out, before + a @ b, rtol=1e-4, atol=1e-5)
    multiply(a, b, out, False)
    np.testing.assert_allclose(out, a @ b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("S", "D"), [(1, 16), (16, 32), (45, 48)])
def test_a_matrix_is_transposed_by_blocks(S: int, D: int):
    matrix, out = random(S, 2 * D)[:, D:], np.zeros((D, S + 7), np.float32)
    transpose(matrix, out)
    np.testing.assert_array_equal(out[:, :S], matrix.T)
    assert not out[:, S:].any()


@needs_wide_vectors
@pytest.mark.parametrize("most_kept", [0, 1 << 24])
@pytest.mark.parametrize("options", [{}, {"window": 1}, {"window": 20}, {"window": 70}, {"causal": False}])
@pytest.mark.parametrize(("T", "S"), [(2, 2), (16, 16), (65, 65), (130, 130), (3, 90), (70, 150)])
@pytest.mark.parametrize("D", [16, 80])
def test_every_query_sees_what_the_reference_sees(D, T, S, options, most_kept, monkeypatch):
    monkeypatch.setattr(tiled, "MAX_KEPT", most_kept)
    with kernels_of("numba"):
        expect_reference(draw(T, S, D=D), dtype=np.float32, tolerance=3e-5, heads=4, **options)


@needs_wide_vectors
@pytest.mark.parametrize("most_kept", [0, 1 << 24])
@pytest.mark.parametrize("window", [None, 20])
@pytest.mark.parametrize(("T", "S"), [(65, 65), (70, 150)])
def test_documents_begin_anywhere(T, S, window, most_kept, monkeypatch):
    monkeypatch.setattr(tiled, "MAX_KEPT", most_kept)
    positions = np.arange(S - T, S)
    starts = np.stack([positions - positions % 7, np.where(positions < S - 9, 0, S - 9)])
    with kernels_of("numba"):
        options = {"heads": 4, "window": window, "document_starts": starts}
        expect_reference(draw(T, S, D=32), dtype=np.float32, tolerance=3e-5, **options)


@needs_wide_vectors
def test_any_number_of_threads_gives_the_same_bits(monkeypatch):
    monkeypatch.setattr(dividing, "WORTH_THREADS", 1)
    arrays = [array.astype(np.float32) for array in draw(70, 70, heads=6, shared=3, D=32)]
    found = []
    for threads in (1, 2, 3, 50):
        monkeypatch.setattr(dividing, "product_threads", lambda threads=threads: threads)
        with kernels_of("numba"):
            found.append(value_and_gradients(arrays, heads=6))
    for other in found[1:]:
        for mine, alone in zip(other, found[0], strict=True):
            np.testing.assert_array_equal(mine, alone)


@needs_wide_vectors
def test_keys_of_a_cache_are_read_where_they_lie():
    query, key, value = (array.astype(np.float32) for array in draw(9, 20, D=16))
    room = np.full((2, 2, 50, key.shape[2]), np.nan, np.float32)
    room[0, :, :20], room[1, :, :20] = key, value
    with kernels_of("numba"), no_grad():
        alone = tiled.tiled_attention(query, key, value, 4, 2, True, 20, np.zeros((2, 9)))[0]
        cached = tiled.tiled_attention(query, room[0][:, :20], room[1][:, :20], 4, 2, True, 20, np.zeros((2, 9)))[0]
    np.testing.assert_array_equal(cached, alone)
