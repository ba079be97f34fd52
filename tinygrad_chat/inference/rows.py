"""What the engine's requests have read: rows of one shared cache or, for models without such a one, each its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from tinygrad_chat.backend import array_module
from tinygrad_chat.inference.prefixes import Prefixes
from tinygrad_chat.models.protocol import LanguageModel
from tinygrad_chat.nn import KeyValueCache


class Rows(Protocol):
    """Rows of tokens that a model has read. A row that leaves is replaced by the last."""

    def join(self, tokens: Sequence[int]) -> Any:
        """Read the tokens of a new row, the last; return the logits (1, V) of what comes next."""
        ...

    def step(self, tokens: Sequence[int]) -> Any:
        """Read one more token of each of the B rows; return the logits (B, V) of what comes next."""
        ...

    def leave(self, row: int) -> None:
        """Forget a row."""
        ...

    def clear(self) -> None:
        """Forget all rows."""
        ...


def rows_of(model: LanguageModel, most: int, *, cached: bool, prefix_bytes: int) -> Rows:
    """Return the rows, at most so many, that suit a model. `prefix_bytes` are kept of rows that left."""
    cache = model.new_cache(most) if cached else None
    if isinstance(cache, KeyValueCache):
        return SharedRows(model, cache, Prefixes(prefix_bytes))
    return SeparateRows(model, cached=cache is not None)


class SharedRows:
    """Rows of one key/value cache: a step is one pass through the model for all of them.

    `tokens_read` counts the tokens that the model has computed; the others were found in the prefixes.
    """

    def __init__(self, model: Any, cache: KeyValueCache, prefixes: Prefixes) -> None:
        self._model, self._cache, self._prefixes = model, cache, prefixes
        self._newcomer: KeyValueCache | None = None
        self._newest: tuple[list[int], Any] | None = None  # what the newcomer's cache holds, and what comes next
        self._read: list[list[int]] = []
        self.tokens_read = 0

    def join(self, tokens: Sequence[int]) -> Any:
        """Read the rest of the tokens of which the beginning is known; alone, and then beside the others.

        Nothing is read where they are those of the newcomer before, as in a group of answers to one problem.
        """
        if not self._read:
            logits = self._read_alone(tokens, self._cache)
        else:
            newcomer = self._newcomer = self._newcomer or self._model.new_cache(1)
            if self._newest is None or self._newest[0] != list(tokens):
                self._newest = None  # until all of it is read
                self._newest = list(tokens), self._read_alone(tokens, newcomer)
            logits = self._newest[1]
            self._cache.join(newcomer)
        self._read.append(list(tokens))
        return logits

    def step(self, tokens: Sequence[int]) -> Any:
        """Read one more token of each."""
        logits = self._logits([[token] for token in tokens], self._cache)
        for read, token in zip(self._read, tokens, strict=True):
            read.append(token)
        return logits

    def leave(self, row: int) -> None:
        """Forget a row, but for what the prefixes keep."""
        self._prefixes.keep(self._read[row], self._cache.keys_and_values(row))
        self._cache.leave(row)
        self._read[row] = self._read[-1]
        self._read.pop()

    def clear(self) -> None:
        """Forget all rows; the prefixes stay."""
        self._read.clear()
        self._cache.clear(rows=0)

    def _read_alone(self, tokens: Sequence[int], cache: KeyValueCache) -> Any:
        """Read the tokens as the one row of a cache."""
        prefix = self._prefixes.longest(tokens)
        if prefix is None:
            cache.clear(rows=1)
        else:
            self._model.restore(cache, *prefix)
        return self._logits([tokens[0 if prefix is None else len(prefix.tokens) :]], cache)

    def _logits(self, tokens: Sequence[Sequence[int]], cache: KeyValueCache) -> Any:
        self.tokens_read += sum(map(len, tokens))
        return next_logits(self._model, tokens, cache)


class SeparateRows:
    """Rows each with a cache of its own or, uncached, read whole again for every token."""

    def __init__(self, model: LanguageModel, *, cached: bool) -> None:
        self._model, self._cached = model, cached
        self._rows: list[tuple[Any, list[int]]] = []

    def join(self, tokens: Sequence[int]) -> Any:
        """Read the tokens."""
        self._rows.append((self._model.new_cache(1) if self._cached else None, list(tokens)))
        return next_logits(self._model, [tokens], self._rows[-1][0])

    def step(self, tokens: Sequence[int]) -> Any:
        """Read one more token of each, row by row."""
        logits = []
        for (cache, read), token in zip(self._rows, tokens, strict=True):
            read.append(token)
            logits.append(next_logits(self._model, [[token] if self._cached else read], cache))
        return array_module(logits[0]).concatenate(logits)

    def clear(self) -> None:
        """Forget all rows."""
        self._rows.clear()

    def leave(self, row: int) -> None:
        """Forget a row."""
        self._rows[row] = self._rows[-1]
        self._rows.pop()


def next_logits(model: LanguageModel, tokens: Sequence[Sequence[int]], cache: Any) -> Any:
    """Return the logits (B, V) after tokens (B, T); what overflows is found where a token is drawn."""
    with np.errstate(all="ignore"):
        return model.next_token_logits(np.array(tokens), cache)
