"""Packs whole conversations into rows of a context; one that is longer is cut at its turns.

It becomes overlapping windows: each begins with the system message, if there is one, continues with the latest turns
before the answers it trains, and trains answers that no other window does. If a question and its answer are too long
together, the question loses its beginning; an answer that is too long alone loses its end. So every row has tokens that
are trained, and no token is trained twice.
"""

from __future__ import annotations

import copy
import functools
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tinygrad_chat.errors import DataError
from tinygrad_chat.formatting import count
from tinygrad_chat.ops.cross_entropy import IGNORED
from tinygrad_chat.option import expect
from tinygrad_chat.seeds import rng
from tinygrad_chat.text.batches import Batch
from tinygrad_chat.text.conversations.template import ChatTemplate
from tinygrad_chat.text.packing import BLOCK

MIN_CONTEXT = 8  # BOS, a question's token, an answer's, and the special tokens around them
TRAINED, OF_SYSTEM = 1, 2
"""Bit flags that a store has for each token: the assistant writes it; it is in or before the system message."""
LOSSES = (
    NO_QUESTION := "questions left out",
    NO_BEGINNING := "questions without their beginning",
    NO_END := "answers without their end",
    NO_SYSTEM := "windows without the system message",
)
"""What may be lost when a conversation is cut."""


class Window(NamedTuple):
    """Which tokens of a conversation a row holds: the first `prefix`, and those from `start` to `stop` (exclusive).

    Those before `trained_from` are only context here. `lost` lists those of LOSSES that it suffers.
    """

    prefix: int
    start: int
    trained_from: int
    stop: int
    lost: tuple[str, ...] = ()

    @property
    def inputs(self) -> int:
        """How many tokens of a row it takes: its last token is only a target."""
        return self.prefix + self.stop - self.start - 1


class ConversationRows:
    """Rows of `context` tokens that hold whole conversations, in an order that depends only on the seed.

    `tokens` (N,) are the conversations concatenated, each beginning at one of `starts`; `marks` (N,) are the bits
    TRAINED and OF_SYSTEM. Row i, counted over all epochs, is a function of the seed and i. The rest of a row is
    padding, which the loss ignores. Raises DataError if there is no conversation.
    """

    def __init__(
        self,
        tokens: np.ndarray,
        marks: np.ndarray,
        starts: np.ndarray,
        *,
        template: ChatTemplate,
        context: int,
        seed: int,
    ) -> None:
        expect("--context (for conversations)", context, minimum=MIN_CONTEXT)
        if not len(starts):
            raise DataError("conversations: expected at least one to train on, received none")
        self._tokens, self._marks = tokens, marks
        self.context, self.seed = context, seed
        ends = np.append(starts[1:], len(tokens))
        self._windows: list[tuple[int, Window]] = []
        longer = 0
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            if end - start <= context + 1:
                self._windows.append((start, Window(0, 0, 0, end - start)))
            else:
                cut = cut_at_turns(tokens[start:end], marks[start:end], template, context + 1)
                self._windows += [(start, window) for window in cut]
                longer += 1
        self.note = _note(longer, context, [window for _, window in self._windows]) if longer else ""
        """A line for the user on how many conversations are cut, and what they lose; empty if none is."""
        order = rng(seed, "documents").permutation(len(self._windows)).tolist()
        self._rows = list(self._packed(order))
        self.rows = len(self._rows)
        self._epoch = functools.lru_cache(maxsize=2)(self._epoch)  # a batch may reach into the next epoch

    def take(self, first: int, count: int) -> Batch:
        """Return `count` rows from `first` on, counted over all epochs: (count, T) tokens and targets.

        Targets that are not trained are IGNORED.
        """
        expect("count", count, minimum=1)
        tokens = np.full((count, self.context), self._tokens[0], np.int64)  # BOS: only other padding attends to it
        targets = np.full((count, self.context), IGNORED, np.int64)
        for number in range(count):
            epoch, row = divmod(first + number, self.rows)
            at = 0
            for which in self._rows[self._epoch(epoch)[row]]:
                start, window = self._windows[which]
                places = np.append(np.arange(window.prefix), np.arange(window.start, window.stop))
                held, marks = self._tokens[start + places].astype(np.int64), self._marks[start + places]
                trained = ((marks & TRAINED) != 0) & (places >= window.trained_from)
                filled = slice(at, at + window.inputs)
                tokens[number, filled] = held[:-1]
                targets[number, filled] = np.where(trained, held, IGNORED)[1:]
                at += window.inputs
        return tokens, targets

    def first(self, tokens: int | None) -> ConversationRows:
        """Return its first rows, with at most that many tokens but at least one row; all rows for None."""
        some = copy.copy(self)
        some.rows = self.rows if tokens is None else min(self.rows, max(1, tokens // self.context))
        return some

    def __len__(self) -> int:
        return self.rows * self.context

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """Yield each row of an epoch once, for evaluation."""
        for first in range(0, self.rows, batch_size):
            yield self.take(first, min(batch_size, self.rows - first))

    def _epoch(self, epoch: int) -> np.ndarray:
        return rng(self.seed, "rows", epoch).permutation(self.rows)

    def _packed(self, order: Sequence[int]) -> Iterator[list[int]]:
        """Yield rows of window numbers; windows worth BLOCK rows of tokens are packed together."""
        block, size = [], 0
        for which in order:
            block.append(which)
            size += self._windows[which][1].inputs
            if size >= BLOCK * self.context:
                yield from self._block(block)
                block, size = [], 0
        yield from self._block(block)

    def _block(self, block: Sequence[int]) -> Iterator[list[int]]:
        lengths = [self._windows[which][1].inputs for which in block]
        for row in fit_whole(lengths, self.context):
            yield [block[number] for number in row]


def fit_whole(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Pack items of these lengths into rows, none cut: the longest that fits into the rest of a row comes next.

    >>> fit_whole([3, 2, 4], 5)
    [[2], [0, 1]]
    """
    waiting = sorted((length, number) for number, length in enumerate(lengths))
    rows: list[list[int]] = []
    while waiting:
        row, room = [], capacity
        while (fitting := bisect_right(waiting, (room, len(lengths))) - 1) >= 0:
            length, number = waiting.pop(fitting)
            row.append(number)
            room -= length
        rows.append(row)
    return rows


def cut_at_turns(tokens: np.ndarray, marks: np.ndarray, template: ChatTemplate, room: int) -> list[Window]:
    """Cut a conversation (N,) into windows of at most `room` tokens; each trains tokens that no other does."""
    asked, answered = template.borders(tokens, with_system=bool((marks & OF_SYSTEM).any()))
    ends, least = [*asked[1:], len(tokens)], asked[0] + 1  # BOS and the beginning of a question
    of_system = max(least, int(((marks & OF_SYSTEM) != 0).sum()) + 1)  # and BOS, which has no mark
    prefix = of_system if of_system <= room // 2 else least

    def window(first: int, done: int, stop: int) -> Window:
        if first == 0:
            return Window(0, 0, asked[done], stop)
        return Window(prefix, asked[first] + 1, asked[done], stop, (NO_SYSTEM,) if prefix < of_system else ())

    windows, done = [], 0
    while done < len(asked):
        first = bisect_left(asked, asked[done] - room // 2)
        while first < done and window(first, done, ends[done]).inputs >= room:
            first += 1
        fitting = bisect_left(ends, room, lo=done, key=lambda stop: window(first, done, stop).inputs)
        if fitting > done:
            windows.append(window(first, done, ends[fitting - 1]))
            done = fitting
        else:
            windows.append(_cut_turn(asked[done], answered[done], ends[done], prefix, of_system, room, least))
            done += 1
    return windows


def _cut_turn(asked: int, answered: int, end: int, prefix: int, of_system: int, room: int, least: int) -> Window:
    """Return a window of one turn, without the question's beginning, or without all of it and the answer's end."""
    prefix = prefix if prefix + end - answered <= room else least
    is_first = asked < least
    begins = of_system if is_first else asked + 1  # where the user's text begins
    start = min(answered, max(asked + 1, prefix if is_first else 0, end - (room - prefix)))
    stop = min(end, start + room - prefix)
    happened = {
        NO_QUESTION: start == answered,
        NO_BEGINNING: begins < start < answered,
        NO_END: stop < end,
        NO_SYSTEM: prefix < of_system,
    }
    return Window(prefix, start, asked, stop, tuple(loss for loss in LOSSES if happened[loss]))


def _note(longer: int, context: int, windows: Sequence[Window]) -> str:
    lost = Counter(loss for window in windows for loss in window.lost)
    losses = [f"{loss}: {lost[loss]:,}" for loss in LOSSES if lost[loss]]
    cut = f"cut {count(longer, 'conversation')} longer than the context of {context:,} tokens"
    return "; ".join(filter(None, [cut, ", ".join(losses)]))
