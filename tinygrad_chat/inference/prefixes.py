"""A prefix cache: keys and values of finished requests, for later requests that share a prefix with them."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Prefix(NamedTuple):
    """The first tokens of a request, and their keys and values (layers, 2, tokens, width)."""

    tokens: np.ndarray
    keys_and_values: Any


class Prefixes:
    """An LRU cache of prefixes, of at most `most_bytes`.

    Nothing is stored twice: no entry is a prefix of another. Entries are sorted by the bytes of their tokens, so that
    the longest common prefix with given tokens is always found at one of the two neighbours of their place, however
    many entries there are.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._order: list[bytes] = []
        self._kept: dict[bytes, Prefix] = {}  # in order of last use, the latest last
        self._bytes = 0

    def keep(self, tokens: Sequence[int], keys_and_values: Any) -> None:
        """Keep a copy; it replaces an entry that is a prefix of it."""
        if keys_and_values.nbytes > self._most_bytes:
            return
        new = np.array(tokens, np.int64)
        for key in self._neighbours(new):
            common = _common(self._kept[key].tokens, new)
            if common == len(new):
                self._use(key)
                return
            if common == len(self._kept[key].tokens):
                self._forget(key)
        bisect.insort(self._order, new.tobytes())
        self._kept[new.tobytes()] = Prefix(new, keys_and_values.copy())
        self._bytes += keys_and_values.nbytes
        while self._bytes > self._most_bytes:
            self._forget(next(iter(self._kept)))

    def longest(self, tokens: Sequence[int]) -> Prefix | None:
        """Return the longest known prefix of tokens, None without one; at least one token is left to read."""
        wanted = np.array(tokens[:-1], np.int64)
        found = [(_common(self._kept[key].tokens, wanted), key) for key in self._neighbours(wanted)]
        length, key = max(found, default=(0, b""))
        if not length:
            return None
        self._use(key)
        kept = self._kept[key]
        return Prefix(kept.tokens[:length], kept.keys_and_values[:, :, :length])

    def _neighbours(self, tokens: np.ndarray) -> list[bytes]:
        """Return the keys before and after the place of tokens in the order."""
        place = bisect.bisect_left(self._order, tokens.tobytes())
        return self._order[max(place - 1, 0) : place + 1]

    def _use(self, key: bytes) -> None:
        self._kept[key] = self._kept.pop(key)

    def _forget(self, key: bytes) -> None:
        del self._order[bisect.bisect_left(self._order, key)]
        self._bytes -= self._kept.pop(key).keys_and_values.nbytes


def _common(one: np.ndarray, other: np.ndarray) -> int:
    """Return the length of the longest common prefix."""
    length = min(len(one), len(other))
    differ = one[:length] != other[:length]
    return int(differ.argmax()) if differ.any() else length
