"""Keys and values of requests that are over, for those that begin as they did."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

SORTED = np.dtype(">i4")
"""Tokens whose bytes are in the order of the tokens."""


class Prefix(NamedTuple):
    """The first tokens of some request, and what a cache holds of them, (layers, 2, tokens, width)."""

    tokens: np.ndarray
    keys_and_values: Any


class Prefixes:
    """At most `most_bytes` of them; which was not used for longest goes first.

    Nothing is kept twice: none of them is the beginning of another. They are in order, so that of all of them one of
    the two neighbours has the longest beginning in common with what is looked for, however many there are.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._order: list[bytes] = []
        self._kept: dict[bytes, Prefix] = {}  # what was used last is last
        self._bytes = 0

    def keep(self, tokens: Sequence[int], keys_and_values: Any) -> None:
        """Keep a copy, in place of what it goes on from."""
        if keys_and_values.nbytes > self._most_bytes:
            return
        new = np.array(tokens, SORTED)
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
        """Return the longest of which something is kept that tokens begin with; at least one of them is left over."""
        wanted = np.array(tokens[:-1], SORTED)
        found = [(_common(self._kept[key].tokens, wanted), key) for key in self._neighbours(wanted)]
        length, key = max(found, default=(0, b""))
        if not length:
            return None
        self._use(key)
        kept = self._kept[key]
        return Prefix(kept.tokens[:length].astype(np.int64), kept.keys_and_values[:, :, :length])

    def _neighbours(self, tokens: np.ndarray) -> list[bytes]:
        """Return what stands before and behind the place of tokens."""
        place = bisect.bisect_left(self._order, tokens.tobytes())
        return self._order[max(place - 1, 0) : place + 1]

    def _use(self, key: bytes) -> None:
        self._kept[key] = self._kept.pop(key)

    def _forget(self, key: bytes) -> None:
        del self._order[bisect.bisect_left(self._order, key)]
        self._bytes -= self._kept.pop(key).keys_and_values.nbytes


def _common(one: np.ndarray, other: np.ndarray) -> int:
    """Return with how many equal tokens two begin."""
    length = min(len(one), len(other))
    differ = one[:length] != other[:length]
    return int(differ.argmax()) if differ.any() else length
