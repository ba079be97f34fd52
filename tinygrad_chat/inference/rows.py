"""The token rows of the engine's requests: in one shared key/value cache or, for models without one, each by itself."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from tinygrad_chat.backend import array_module
from tinygrad_chat.inference.prefixes import Prefix, Prefixes
from tinygrad_chat.models.protocol import LanguageModel
from tinygrad_chat.nn import KeyValueCache

Prompt = tuple[int, ...]

MAX_TOKENS = 1024
"""Most tokens, padding included, in one prefill batch: larger batches are no faster and need more memory."""
PASS = 8
"""One more forward pass takes as long as reading this many tokens."""
PADDING = 0
"""The token that fills the columns before a prompt; the prompt does not attend to it."""


class Rows(Protocol):
    """Rows of tokens that a model has read. When a row is removed, the last row takes its place."""

    def join(self, prompts: Sequence[Sequence[int]]) -> tuple[list[int], Any]:
        """Prefill N >= 1 prompts as new rows after the existing ones.

        Return the indices of the prompts in the order of their rows, and the next-token logits (N, V) in that order.
        """
        ...

    def step(self, tokens: Sequence[int]) -> Any:
        """Read one more token of each of the B rows; return the next-token logits (B, V)."""
        ...

    def leave(self, row: int) -> None:
        """Remove a row."""
        ...

    def clear(self) -> None:
        """Remove all rows."""
        ...


def rows_of(model: LanguageModel, most: int, *, cached: bool, prefix_bytes: int) -> Rows:
    """Return the kind of rows that suits a model, at most `most` of them, with a prefix cache of `prefix_bytes`."""
    cache = model.new_cache(most) if cached else None
    if isinstance(cache, KeyValueCache):
        return SharedRows(model, cache, Prefixes(prefix_bytes))
    return SeparateRows(model, cached=cache is not None)


class Unread(NamedTuple):
    """A prompt whose last `new` tokens must still be read; `prefix` holds the others, if any."""

    tokens: Prompt
    prefix: Prefix | None

    @property
    def new(self) -> int:
        """How many tokens must be read."""
        return len(self.tokens) - (len(self.prefix.tokens) if self.prefix else 0)


class Known(NamedTuple):
    """A prompt that was read: its keys and values (layers, 2, tokens, width) and its next-token logits (1, V)."""

    tokens: Prompt
    keys_and_values: Any
    logits: Any


class SharedRows:
    """Rows of one key/value cache: a step is one forward pass for all of them.

    `tokens_read` counts the tokens that the model has computed, without padding: not those found in the prefix cache.
    """

    def __init__(self, model: Any, cache: KeyValueCache, prefixes: Prefixes) -> None:
        self._model, self._cache, self._prefixes = model, cache, prefixes
        self._newest: Known | None = None
        self._read: list[list[int]] = []
        self.tokens_read = 0
        cache.clear(rows=0)

    def join(self, prompts: Sequence[Sequence[int]]) -> tuple[list[int], Any]:
        """Prefill what the prefix cache lacks of each prompt; prompts with similar numbers of new tokens share a batch.

        Equal prompts, as in a group of answers to one problem, are read once; not at all if the last prompt of the
        previous call was equal.
        """
        places: dict[Prompt, list[int]] = {}
        for place, tokens in enumerate(prompts):
            places.setdefault(tuple(tokens), []).append(place)
        newest, first = self._newest, len(self._read)
        known = {newest.tokens: newest} if newest else {}
        unread = [Unread(tokens, self._prefixes.longest(tokens)) for tokens in places if tokens not in known]
        rows: list[Prompt] = []
        logits: list[Any] = []
        for batch in batches(unread, most_tokens=0 if self._model.batch_invariant else MAX_TOKENS):
            logits.append(self._read_together(batch))
            rows += (each.tokens for each in batch)
        for row, (tokens, found) in enumerate(zip(rows, itertools.chain(*logits), strict=True), first):
            known[tokens] = Known(tokens, self._cache.keys_and_values(row), found[None])
        order = [places[tokens].pop() for tokens in rows]
        for tokens, again in places.items():
            if again:
                logits += self._repeat(known[tokens], len(again))
                order += again
        last = known[tuple(prompts[-1])]
        self._newest = last if last is newest else last._replace(keys_and_values=last.keys_and_values.copy())
        return order, array_module(logits[0]).concatenate(logits)

    def step(self, tokens: Sequence[int]) -> Any:
        """Read one more token of each row in one forward pass."""
        self.tokens_read += len(tokens)
        logits = next_logits(self._model, [[token] for token in tokens], self._cache)
        for read, token in zip(self._read, tokens, strict=True):
            read.append(token)
        return logits

    def leave(self, row: int) -> None:
        """Remove a row; its keys and values go into the prefix cache."""
        self._prefixes.keep(self._read[row], self._cache.keys_and_values(row))
        self._cache.leave(row)
        self._read[row] = self._read[-1]
        self._read.pop()

    def clear(self) -> None:
        """Remove all rows; the prefix cache stays."""
        self._read.clear()
        self._cache.clear(rows=0)

    def _read_together(self, batch: Sequence[Unread]) -> Any:
        """Prefill prompts as new rows; return their next-token logits (N, V).

        The same number of tokens is read of each prompt: the largest number of new ones. A prompt with fewer reads the
        end of its prefix again or, if the prefix is too short, gets padding in front.
        """
        columns = max(each.new for each in batch)
        cache = self._cache.newcomers([len(each.tokens) for each in batch])
        known = [max(len(each.tokens) - columns, 0) for each in batch]
        if any(known):
            beginnings = [each.tokens[:length] for each, length in zip(batch, known, strict=True)]
            kept = {
                row: each.prefix.keys_and_values[:, :, : known[row]]
                for row, each in enumerate(batch)
                if each.prefix and known[row]
            }
            self._model.restore(cache, padded(beginnings, max(known)), kept)
        logits = next_logits(self._model, padded([each.tokens[-columns:] for each in batch], columns), cache)
        self.tokens_read += sum(min(len(each.tokens), columns) for each in batch)
        self._join(cache, [each.tokens for each in batch])
        return logits

    def _repeat(self, known: Known, count: int) -> list[Any]:
        """Add `count` rows that copy a prompt already read; return the logits (1, V) of each."""
        tokens = [known.tokens] * count
        cache = self._cache.newcomers([len(known.tokens)] * count)
        self._model.restore(cache, tokens, dict.fromkeys(range(count), known.keys_and_values))
        self._join(cache, tokens)
        return [known.logits] * count

    def _join(self, cache: KeyValueCache, prompts: Sequence[Prompt]) -> None:
        self._cache.join(cache)
        self._read += map(list, prompts)


def batches(prompts: Iterable[Unread], *, most_tokens: int) -> Iterator[list[Unread]]:
    """Group prompts into batches to read together.

    A batch of several prompts has at most `most_tokens` tokens with padding, and no prompt gets more padding than
    reading it alone would cost.
    """
    batch: list[Unread] = []
    for prompt in sorted(prompts, key=lambda each: each.new, reverse=True):
        most = batch[0].new if batch else 0
        if batch and (most - prompt.new > PASS + prompt.new // 2 or (len(batch) + 1) * most > most_tokens):
            yield batch
            batch = []
        batch.append(prompt)
    if batch:
        yield batch


def padded(prompts: Sequence[Sequence[int]], columns: int) -> list[list[int]]:
    """Left-pad prompts to `columns` tokens each."""
    return [[PADDING] * (columns - len(tokens)) + list(tokens) for tokens in prompts]


class SeparateRows:
    """Rows that each have their own cache or, if not `cached`, are read again in full for every token."""

    def __init__(self, model: LanguageModel, *, cached: bool) -> None:
        self._model, self._cached = model, cached
        self._rows: list[tuple[Any, list[int]]] = []

    def join(self, prompts: Sequence[Sequence[int]]) -> tuple[list[int], Any]:
        """Prefill the prompts, one at a time."""
        logits = []
        for tokens in prompts:
            self._rows.append((self._model.new_cache(1) if self._cached else None, list(tokens)))
            logits.append(next_logits(self._model, [tokens], self._rows[-1][0]))
        return list(range(len(prompts))), array_module(logits[0]).concatenate(logits)

    def step(self, tokens: Sequence[int]) -> Any:
        """Read one more token of each row, one row at a time."""
        logits = []
        for (cache, read), token in zip(self._rows, tokens, strict=True):
            read.append(token)
            logits.append(next_logits(self._model, [[token] if self._cached else read], cache))
        return array_module(logits[0]).concatenate(logits)

    def clear(self) -> None:
        """Remove all rows."""
        self._rows.clear()

    def leave(self, row: int) -> None:
        """Remove a row."""
        self._rows[row] = self._rows[-1]
        self._rows.pop()


def next_logits(model: LanguageModel, tokens: Sequence[Sequence[int]], cache: Any) -> Any:
    """Return the logits (B, V) after tokens (B, T). Overflow is not reported here: the sampler detects it."""
    with np.errstate(all="ignore"):
        return model.next_token_logits(np.array(tokens), cache)
