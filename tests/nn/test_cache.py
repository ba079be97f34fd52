"""The key/value cache: it gives back what all tokens left there, until it is cleared."""

from __future__ import annotations

import numpy as np

from tinygrad_chat.backend import get_backend
from tinygrad_chat.nn import KeyValueCache


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
