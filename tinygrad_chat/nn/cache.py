"""The key/value cache: what attention has already computed for earlier tokens, kept for the next ones."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinygrad_chat.autograd import find_kernel
from tinygrad_chat.backend import Backend

FIRST_COLUMNS = 256
"""Positions for which memory is allocated at first."""


def write_columns(key: Any, value: Any, keys: Any, values: Any, column: int) -> None:
    """Write the keys and values of new tokens (B, T, width) into those of all (B, S, width), from `column` on. A kernel
    for the arrays' back end may replace it, which also takes an array without axes as `column`."""
    keys[:, column : column + key.shape[1]] = key
    values[:, column : column + key.shape[1]] = value


class KeyValueCache:
    """Keys and values of the tokens so far, for every layer of a model, at most `capacity` positions.

    Each layer passes its new keys and values (B, T, width) to `extend` and gets back those of all tokens; after the
    last layer, `advance` counts the new tokens. Rows may differ in length. They are padded on the left: all end at
    column `end`, and each begins at its own column, before which it sees nothing:

        column   0  1  2  3  4  5
        row 0    a  b  c  d  e  f       starts[0] = 0
        row 1             p  q  r       starts[1] = 3

    So a step appends one column to every row. `newcomers` are prefilled in a separate cache, which uses the memory of
    the rows after the present ones, until they `join` them. Few columns are allocated at first, and twice as many
    whenever they are full, so a context of 8,192 tokens takes its memory only when it is used. The class is defined
    beside the layers because models must be able to create one; only `inference` drives it.
    """

    filled: Any = None
    """How many of the keys that `extend` returns are there yet, as an array; None if all are."""
    captured: Any = None
    """The steps of one token that its model has captured as CUDA graphs, if it does so (`models.captured_steps`)."""

    def __init__(self, layers: int, batch: int, capacity: int, width: int, *, backend: Backend, dtype: Any) -> None:
        self._xp = backend.xp
        # Zeros: the padding before a row is multiplied by weights of 0, and must not be NaN.
        self._buffer = self._xp.zeros((layers, 2, batch, min(capacity, FIRST_COLUMNS), width), dtype)
        self._batch = batch
        self.capacity = capacity
        self.clear()

    def clear(self, rows: int | None = None) -> None:
        """Forget everything but keep the memory, for `rows` new rows, by default as many as there is room for."""
        self.rows = self._batch if rows is None else rows
        self.end = 0
        self.starts = np.zeros(self.rows, np.int64)
        """The column (B,) at which each row begins."""
        self.last_embedding: Any = None
        """The embedding of each row's newest token (B, 1, width), for models that smear it into the next."""
        self.document_start = self._xp.zeros((self.rows, 1), np.int64)
        """Where in its row (B, 1) the newest token's document begins, for models that see no other document."""

    @property
    def nbytes(self) -> int:
        """The memory that the cache takes once it is full, in bytes."""
        return self._buffer.nbytes // self._buffer.shape[3] * self.capacity

    @property
    def memory(self) -> Any:
        """The keys and values of all rows, in all columns for which there is memory yet: (layers, 2, B, S, width)."""
        return self._buffer

    @property
    def length(self) -> int:
        """The number of tokens in the longest row."""
        return int(self.end - self.starts.min(initial=self.end))

    @property
    def has_padding(self) -> bool:
        """Whether the next tokens include padding: whether a row begins further on."""
        return self.end < self.starts.max(initial=0)

    def positions(self, tokens: int) -> slice | np.ndarray:
        """Return the positions of that many new tokens in their rows: a slice if no row is padded, else (B, T), with
        negative numbers in the padding before a row begins."""
        if not self.starts.any():
            return slice(self.end, self.end + tokens)
        return np.arange(self.end, self.end + tokens) - self.starts[:, None]

    def make_room(self, tokens: int) -> None:
        """Ensure that there are columns for new tokens: at full capacity, move the rows so that the longest begins at
        column 0."""
        if self.end + tokens > self.capacity:
            self._move(self.length)
        self._have_columns(self.end + tokens)

    def extend(self, layer: int, key: Any, value: Any) -> tuple[Any, Any]:
        """Store the new tokens' keys and values (arrays) for a layer; return those of all tokens, as views."""
        end = self.end + key.shape[1]
        keys, values = self._buffer[layer, :, : self.rows]
        find_kernel(write_columns, write_columns, keys)(key, value, keys, values, self.end)
        return keys[:, :end], values[:, :end]

    def advance(self, tokens: int) -> None:
        """Count `tokens` new positions as stored in every layer."""
        self.end += tokens

    def newcomers(self, lengths: Sequence[int]) -> KeyValueCache:
        """Return an empty cache for new rows of these lengths. It uses the memory that they will occupy here once they
        `join`; until then this cache must not change."""
        longest = max(lengths)
        if not self.rows:
            self.clear(rows=0)
        if longest > self.end:
            self._move(longest)
        others = copy.copy(self)
        others.captured = None
        rows, columns = slice(self.rows, self.rows + len(lengths)), slice(self.end - longest, self.end)
        others._buffer = self._buffer[:, :, rows, columns]
        others.capacity = longest
        others.clear(rows=len(lengths))
        others.starts = longest - np.array(lengths)
        return others

    def join(self, newcomers: KeyValueCache) -> None:
        """Append the newcomers, once they are prefilled, as the last rows."""
        self.rows += newcomers.rows
        self.starts = np.append(self.starts, newcomers.starts + self.end - newcomers.end)
        self.document_start = self._xp.concatenate([self.document_start, newcomers.document_start])
        embeddings = [each for each in (self.last_embedding, newcomers.last_embedding) if each is not None]
        self.last_embedding = self._xp.concatenate(embeddings) if embeddings else None

    def leave(self, row: int) -> None:
        """Remove a row; the last one takes its place."""
        last = self.rows - 1
        if row < last:
            taken = slice(int(self.starts[last]), self.end)
            self._buffer[:, :, row, taken] = self._buffer[:, :, last, taken]
            for each in (self.starts, self.document_start, self.last_embedding):
                if each is not None:
                    each[row] = each[last]
        self.rows = last
        self.starts, self.document_start = self.starts[:last], self.document_start[:last]
        if self.last_embedding is not None:
            self.last_embedding = self.last_embedding[:last]

    def keys_and_values(self, row: int) -> Any:
        """Return the keys and values of a row, (layers, 2, length, width), as a view."""
        return self._buffer[:, :, row, int(self.starts[row]) : self.end]

    def load(self, end: int, keys_and_values: Mapping[int, Any]) -> None:
        """Copy in the keys and values of the first tokens of some rows, by row: (layers, 2, length, width). They end at
        column `end`; the cache must be empty."""
        self._have_columns(end)
        self.end = end
        for row, each in keys_and_values.items():
            self._buffer[:, :, row, end - each.shape[2] : end] = each

    def _move(self, end: int) -> None:
        """Move the contents so that the rows end at column `end`."""
        kept, by = self.length, end - self.end
        held = self._buffer[:, :, : self.rows, self.end - kept : self.end].copy()  # source and target overlap
        self._have_columns(end)
        self._buffer[:, :, : self.rows, end - kept : end] = held
        self.starts, self.end = self.starts + by, end

    def _have_columns(self, count: int) -> None:
        """Move the contents to a larger buffer if this one has fewer than `count` columns."""
        *outer, columns, width = self._buffer.shape
        if count > columns:
            enlarged = self._xp.zeros((*outer, min(max(count, 2 * columns), self.capacity), width), self._buffer.dtype)
            if self.captured is not None:
                self.captured.forget()
            enlarged[:, :, : self.rows, : self.end] = self._buffer[:, :, : self.rows, : self.end]
            self._buffer = enlarged
