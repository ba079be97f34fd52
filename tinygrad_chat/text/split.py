"""Which part of a corpus is held out for validation: whole documents by their hash, or the end of a text.

A document is held out if the first 64 bits of its SHA-256 are below a tenth of their range. That depends only on its
text: adding to a corpus moves no other document to the other side, and two documents with the same text are always on
the same side. With few different documents, or one that dominates, this would hold out nearly nothing or nearly all:
then the last tenth of the tokens is held out, wherever it begins.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate

HELD_OUT = 10  # one document, or one token, of this many
MIN_DOCUMENTS = 50
MAX_UNEVEN = 2  # factor by which the held-out share of bytes may be too small or too large

AUTO, DOCUMENTS, END = "auto", "documents", "end"


def is_held_out(digest: bytes) -> bool:
    """Return whether the document with this SHA-256 is held out.

    >>> is_held_out(bytes(32)), is_held_out(bytes([26] * 32))
    (True, False)
    """
    return int.from_bytes(digest[:8]) * HELD_OUT < 1 << 64


def end_from(tokens: int) -> int:
    """Return the index from which the tokens of a text are held out.

    >>> end_from(100), end_from(109), end_from(9)
    (90, 99, 9)
    """
    return tokens - tokens // HELD_OUT


def documents_before_end(lengths: Iterable[int]) -> int:
    """Return how many documents of these lengths are trained on if the end is held out and none is cut: up to the
    border nearest to `end_from`, but at least one.

    >>> documents_before_end([50, 30, 15, 5]), documents_before_end([7])
    (3, 1)
    """
    ends = list(accumulate(lengths))
    return 1 + min(range(len(ends) - 1), key=lambda index: abs(ends[index] - end_from(ends[-1])), default=0)


def choose_split(chosen: str, *, documents: int, bytes: int, held_out: int) -> str:
    """Return the split of a corpus of so many different `documents` and `bytes`, `held_out` of them held out by hash.

    That is the one `chosen` or, for "auto", by documents if the corpus allows it.

    >>> [choose_split("auto", documents=number, bytes=1000, held_out=90) for number in (49, 50)]
    ['end', 'documents']
    """
    if chosen != AUTO:
        return chosen
    even = bytes <= MAX_UNEVEN * HELD_OUT * held_out and held_out * HELD_OUT <= MAX_UNEVEN * bytes
    return DOCUMENTS if documents >= MIN_DOCUMENTS and even else END
