"""Keys and values of requests that are over, for those that begin as they did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Prefix(NamedTuple):
    """The first tokens of some request, and what a cache holds of them, (layers, 2, tokens, width)."""

    tokens: np.ndarray
    keys_and_values: Any


class Prefixes:
    """At most `most_bytes` of them; which was not used for longest goes first."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._kept: list[Prefix] = []  # what was used last is last

    def keep(self, tokens: Sequence[int], keys_and_values: Any) -> None:
        """Keep a copy, in place of those that it goes on from."""
        if keys_and_values.nbytes > self._most_bytes:
            return
        new = Prefix(np.array(tokens, np.int64), keys_and_values.copy())
        others = [each for each in self._kept if _common(each.tokens, new.tokens) < len(each.tokens)]
        self._kept = [*others, new]
        while sum(each.keys_and_values.nbytes for each in self._kept) > self._most_bytes:
            self._kept.pop(0)

    def longest(self, tokens: Sequence[int]) -> Prefix | None:
        """Return the longest of which something is kept that tokens begin with; at least one of them is left over."""
        wanted = np.array(tokens[:-1], np.int64)
        lengths = [_common(each.tokens, wanted) for each in self._kept]
        if not any(lengths):
            return None
        found = self._kept.pop(int(np.argmax(lengths)))
        self._kept.append(found)
        length = max(lengths)
        return Prefix(found.tokens[:length], found.keys_and_values[:, :, :length])


def _common(one: np.ndarray, other: np.ndarray) -> int:
    """Return with how many equal tokens two begin."""
    length = min(len(one), len(other))
    differ = one[:length] != other[:length]
    return int(differ.argmax()) if differ.any() else length
