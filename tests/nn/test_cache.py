"""The key/value cache: it gives back what all tokens left there, until it is cleared."""

from __future__ import annotations

import numpy as np
import pytest

from tinygrad_chat.backend import get_backend
from tinygrad_chat.nn import KeyValueCache
from tinygrad_chat.nn import cache as cache_module


def test_each_layer_gets_back_all_of_its_own_and_a_cleared_cache_nothing():
    cache = KeyValueCache(2, 1, 6, 4, backend=get_backend("numpy"), dtype=np.float64)
    keys, values = np.random.default_rng(0).normal(size=(2, 2, 1, 5, 4))  # for each layer
    for piece in (slice(0, 2), slice(2, 5)):
        for layer in (0, 1):
            found = cache.extend(layer, keys[layer][:, piece], values[layer][:, piece])
            np.testing.assert_array_equal(found[0], keys[layer][:, : piece.stop])
            np.testing.assert_array_equal(found[1], values[layer][:, : piece.stop])
        cache.advance(piece.stop - piece.start)
    assert cache.length == 5
    cache.last_embedding = keys[0][:, -1:]
    cache.clear()
    assert (cache.length, cache.last_embedding) == (0, None)
    again, _ = cache.extend(0, values[0][:, :1], keys[0][:, :1])
    np.testing.assert_array_equal(again, values[0][:, :1])


def rows_of(cache: KeyValueCache) -> list[list[float]]:
    return [cache.keys_and_values(row)[0, 0, :, 0].tolist() for row in range(cache.rows)]


def read(cache: KeyValueCache, *rows: list[float]) -> None:
    """Let rows join, of which keys, values and the last embedding are these numbers; their padding is -1."""
    newcomers = cache.newcomers([len(row) for row in rows])
    columns = max(map(len, rows))
    content = np.array([[-1] * (columns - len(row)) + row for row in rows], float)[..., None]
    newcomers.make_room(columns)
    newcomers.extend(0, content, content)
    newcomers.advance(columns)
    newcomers.last_embedding = content[:, -1:]
    cache.join(newcomers)


@pytest.mark.parametrize("columns", [1, 2, cache_module.FIRST_COLUMNS])
def test_rows_of_any_length_join_end_together_and_leave(columns: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cache_module, "FIRST_COLUMNS", columns)
    cache = KeyValueCache(1, 3, 6, 1, backend=get_backend("numpy"), dtype=np.float64)
    cache.clear(rows=0)
    read(cache, [1, 2, 3], [10])
    read(cache, [20, 21, 22, 23, 24])  # longer than what is there, which moves
    assert rows_of(cache) == [[1, 2, 3], [10], [20, 21, 22, 23, 24]]
    assert (cache.length, cache.end, cache.starts.tolist()) == (5, 5, [2, 4, 0])
    positions = cache.positions(2)
    assert isinstance(positions, np.ndarray)
    assert positions.tolist() == [[3, 4], [1, 2], [5, 6]]
    new = np.array([4.0, 11, 25]).reshape(3, 1, 1)
    cache.make_room(1)
    cache.extend(0, new, new)
    cache.advance(1)
    assert rows_of(cache) == [[1, 2, 3, 4], [10, 11], [20, 21, 22, 23, 24, 25]]
    cache.leave(0)  # the last takes its place
    assert rows_of(cache) == [[20, 21, 22, 23, 24, 25], [10, 11]]
    assert cache.last_embedding.ravel().tolist() == [24, 10]
    cache.leave(0)
    assert rows_of(cache) == [[10, 11]]
    cache.make_room(1)  # the end was reached: what is left moves to the first column
    assert (rows_of(cache), cache.end, cache.starts.tolist()) == ([[10, 11]], 2, [0])
    assert cache.positions(1) == slice(2, 3)


def test_a_long_context_takes_its_memory_when_it_is_used():
    cache = KeyValueCache(2, 4, 8192, 16, backend=get_backend("numpy"), dtype=np.float32)
    full = cache.nbytes
    assert full == 2 * 2 * 4 * 8192 * 16 * 4
    assert cache._buffer.nbytes == full * cache_module.FIRST_COLUMNS / 8192
    cache.make_room(300)
    assert cache._buffer.nbytes == full * 512 / 8192
    kept = np.random.default_rng(0).normal(size=(2, 2, 5000, 16)).astype(np.float32)
    cache.clear(rows=1)
    cache.load(5000, {0: kept})
    np.testing.assert_array_equal(cache.keys_and_values(0), kept)
    assert cache._buffer.nbytes == full * 5000 / 8192
    cache.make_room(1)
    np.testing.assert_array_equal(cache.keys_and_values(0), kept)
    assert (cache._buffer.shape[3], cache.nbytes) == (8192, full)


def test_newcomers_stand_behind_the_rows_that_there_are_and_begin_with_what_is_known_of_them():
    cache = KeyValueCache(1, 4, 8, 1, backend=get_backend("numpy"), dtype=np.float64)
    cache.clear(rows=0)
    read(cache, [1, 2, 3, 4, 5, 6])
    newcomers = cache.newcomers([5, 2, 4])
    assert (newcomers.rows, newcomers.starts.tolist()) == (3, [0, 3, 1])
    newcomers.load(2, {0: np.full((1, 2, 2, 1), 10.0), 2: np.full((1, 2, 1, 1), 30.0)})
    positions = newcomers.positions(3)
    assert isinstance(positions, np.ndarray)
    assert positions.tolist() == [[2, 3, 4], [-1, 0, 1], [1, 2, 3]]  # the one below 0 is padding
    assert rows_of(cache) == [[1, 2, 3, 4, 5, 6]]
    newcomers.extend(0, np.full((3, 3, 1), 20.0), np.zeros((3, 3, 1)))
    newcomers.advance(3)
    cache.join(newcomers)
    assert rows_of(cache) == [[1, 2, 3, 4, 5, 6], [10, 10, 20, 20, 20], [20, 20], [30, 20, 20, 20]]
    assert cache.starts.tolist() == [0, 1, 4, 2]
