"""Which part of a corpus is held out to evaluate on: whole documents by their hash, or the end of a text.

A document is held out where the first 64 bits of its SHA-256 are below a tenth of what they can be. That depends on
nothing but its text: what is added to a corpus moves no other document from one side to the other, and two documents
with the same text are never on different sides. Of few different documents, or where a long one tips the scales, it
would hold out nearly nothing or nearly all: there the last tenth of the tokens is held out, wherever it begins.
"""

from __future__ import annotations

HELD_OUT = 10  # one document, or one token, of this many
LEAST_DOCUMENTS = 50
MOST_UNEVEN = 2  # how many times the share of bytes that is held out may be too small or too large

AUTO, DOCUMENTS, END = "auto", "documents", "end"


def is_held_out(digest: bytes) -> bool:
    """Return whether the document with this SHA-256 is held out.

    >>> is_held_out(bytes(32)), is_held_out(bytes([26] * 32))
    (True, False)
    """
    return int.from_bytes(digest[:8]) * HELD_OUT < 1 << 64


def end_from(tokens: int) -> int:
    """Return from which token on the end of a text is held out.

    >>> end_from(100), end_from(109), end_from(9)
    (90, 99, 9)
    """
    return tokens - tokens // HELD_OUT


def choose_split(chosen: str, *, documents: int, bytes: int, held_out: int) -> str:
    """Return the split of a corpus of so many different `documents`, of which the hash holds out so many bytes.

    That is what was `chosen`, and otherwise, for "auto", what the corpus allows.

    >>> [choose_split("auto", documents=number, bytes=1000, held_out=90) for number in (49, 50)]
    ['end', 'documents']
    """
    if chosen != AUTO:
        return chosen
    even = bytes <= MOST_UNEVEN * HELD_OUT * held_out and held_out * HELD_OUT <= MOST_UNEVEN * bytes
    return DOCUMENTS if documents >= LEAST_DOCUMENTS and even else END
