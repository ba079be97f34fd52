"""The next column of a key/value cache, for a step that is captured as a CUDA graph: another one at each replay."""

from __future__ import annotations

from typing import Any

from tinygrad_chat.autograd import find_kernel
from tinygrad_chat.nn.cache import KeyValueCache, write_columns


class NextColumn:
    """A cache as a model meets it while a step of one token for each row is captured.

    `keys_and_values` (layers, 2, B, S, width) are those of the rows, in all columns for which the cache has memory.
    `end`, an array without axes, is the column of the new tokens, and `starts` (B,) are those at which rows begin; both
    lie in the device's memory, where every replay reads them anew. The driver has made room and seen that the
    context is not full.
    """

    length = 0
    """The tokens that count against the context."""
    has_padding = False
    """Whether a row begins further on."""

    def __init__(self, keys_and_values: Any, end: Any, starts: Any) -> None:
        self._keys_and_values, self._end, self.starts = keys_and_values, end, starts
        self.filled = end + 1
        self.last_embedding: Any = None
        self.document_start: Any = None

    def make_room(self, tokens: int) -> None:
        """Do nothing."""

    def advance(self, tokens: int) -> None:
        """Do nothing."""

    def positions(self, tokens: int) -> Any:
        """Return the positions (B, 1) of the new tokens in their rows."""
        return (self._end - self.starts)[:, None]

    def extend(self, layer: int, key: Any, value: Any) -> tuple[Any, Any]:
        """Store the new tokens' keys and values for a layer; return those of all columns, filled or not, as views."""
        keys, values = self._keys_and_values[layer]
        find_kernel(write_columns, write_columns, keys)(key, value, keys, values, self._end)
        return keys, values


AnyCache = KeyValueCache | NextColumn
"""What a model may meet as its cache."""
