"""Packs documents into rows, so that most begin and end within one, and no token is lost.

Best-fit packing (Ding et al., arXiv:2404.10830) cuts a document only if a row cannot be filled otherwise. Here the rest
of a document that is cut begins the next row. So in each epoch every token is an input once, with the token that
follows it as its target. Only the last row of each block of rows may end in padding.

>>> tokens = np.array([9, 1, 2, 9, 3, 9, 4, 5, 6, 7, 9])  # 9 is BOS
>>> rows = PackedRows(tokens, np.array([0, 3, 5, 10]), context=5, seed=0)
>>> inputs, targets = rows.take(0, 2)
>>> inputs.tolist(), targets.tolist()
([[9, 4, 5, 6, 7], [9, 1, 2, 9, 3]], [[4, 5, 6, 7, 9], [1, 2, 9, 3, 9]])
"""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from tinygrad_chat.errors import DataError
from tinygrad_chat.ops.cross_entropy import IGNORED
from tinygrad_chat.option import expect
from tinygrad_chat.seeds import rng
from tinygrad_chat.text.batches import Batch

BLOCK = 2048  # rows packed together: with a quarter as many, ten times as many documents are cut
PADDING = -1  # the index of no token

Piece = tuple[int, int, int]
"""A document's number, and a range of its tokens: start and, exclusive, stop."""


class PackedRows:
    """Rows of `context` tokens that documents are packed into, in an order that depends only on the seed.

    `tokens` (N,) are the documents concatenated, each beginning at one of `document_starts`. The documents are shuffled
    once and packed in blocks; each epoch shuffles the blocks, and the rows within each. Row i, counted over all epochs,
    is a function of the seed and i: there is no state to save, and the number of processes that share the rows of a
    batch does not matter.
    """

    def __init__(self, tokens: np.ndarray, document_starts: np.ndarray, *, context: int, seed: int) -> None:
        """Raise DataError if there is no token that another one follows."""
        expect("context", context, minimum=1)
        lengths = np.diff(document_starts, append=len(tokens) - 1)  # the very last token has no target
        if len(lengths) == 0 or lengths.sum() < 1:
            raise DataError(f"packing: expected at least 2 tokens, received {len(tokens)}; use a longer text")
        self._tokens, self._starts, self._lengths = tokens, document_starts, lengths
        self.context, self.seed = context, seed
        self._order = rng(seed, "documents").permutation(len(lengths))
        shuffled = lengths[self._order]
        ends = np.cumsum(shuffled)
        block_of = (ends - shuffled) // (BLOCK * context)  # the block in which a document begins
        self._firsts = np.append(np.flatnonzero(np.diff(block_of, prepend=-1)), len(lengths))
        self._rows = -(-np.add.reduceat(shuffled, self._firsts[:-1]) // context)
        self.rows = int(self._rows.sum())
        self._epoch = functools.lru_cache(maxsize=2)(self._epoch)  # a batch may reach into the next epoch
        self._block = functools.lru_cache(maxsize=2)(self._block)

    def take(self, first: int, count: int) -> Batch:
        """Return `count` rows from `first` on, counted over all epochs: (count, T) tokens and targets.

        Targets of padding are IGNORED.
        """
        expect("count", count, minimum=1)
        indices = np.stack([self._row(*divmod(row, self.rows)) for row in range(first, first + count)])
        is_padding = indices == PADDING
        indices[is_padding] = self._starts[0]  # a BOS, which only other padding attends to
        tokens, targets = (self._tokens[index].astype(np.int64) for index in (indices, indices + 1))
        return tokens, np.where(is_padding, IGNORED, targets)

    def _row(self, epoch: int, row: int) -> np.ndarray:
        """Return the indices of the tokens in an epoch's row, (T,)."""
        order, ends = self._epoch(epoch)
        rank = int(np.searchsorted(ends, row, side="right"))
        rows = self._block(epoch, int(order[rank]))
        pieces = [np.arange(start, stop) for start, stop in rows[row - (ends[rank] - len(rows))]]
        padding = np.full(self.context - sum(map(len, pieces)), PADDING)
        return np.concatenate([*pieces, padding])

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return an epoch's order of the blocks, and the number of rows up to the end of each."""
        order = rng(self.seed, "blocks", epoch).permutation(len(self._rows))
        return order, np.cumsum(self._rows[order])

    def _block(self, epoch: int, block: int) -> list[list[tuple[int, int]]]:
        """Return the token ranges, start and stop, in each row of a block, in an epoch's order."""
        documents = self._order[self._firsts[block] : self._firsts[block + 1]]
        packed, first = best_fit(self._lengths[documents].tolist(), self.context), self._starts[documents].tolist()
        order = rng(self.seed, "rows", epoch * len(self._rows) + block).permutation(len(packed))
        return [[(first[n] + start, first[n] + stop) for n, start, stop in packed[row]] for row in order]


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[Piece]]:
    """Pack documents of these `lengths` into rows of pieces; all rows but the last are full.

    The longest document that fits into the rest of a row comes next. If none fits, the longest of all begins there, and
    its rest begins the next row.

    >>> best_fit([3, 2, 4], 5)
    [[(2, 0, 4), (0, 0, 1)], [(0, 1, 3), (1, 0, 2)]]
    """
    waiting = sorted((length, number) for number, length in enumerate(lengths) if length)
    rows: list[list[Piece]] = []
    rest: Piece | None = None
    while rest or waiting:
        row, room = [], capacity
        while room and (rest or waiting):
            if rest is None:
                fitting = bisect_right(waiting, (room, len(lengths))) - 1  # -1, the longest of all, if none fits
                length, number = waiting.pop(fitting)
                rest = (number, 0, length)
            number, start, stop = rest
            cut = min(stop, start + room)
            row.append((number, start, cut))
            room -= cut - start
            rest = (number, cut, stop) if cut < stop else None
        rows.append(row)
    return rows
