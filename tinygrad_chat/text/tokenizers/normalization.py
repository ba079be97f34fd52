"""Unicode normalisation (NFC) of a text that comes in pieces, which some models' tokenizers require."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterable, Iterator

LONGEST = 1 << 16  # characters that may combine with one another; in real text it is a handful


def normalized(pieces: Iterable[str]) -> Iterator[str]:
    """Yield the NFC of a text that comes cut anywhere: a character is held until those that may join it have come.

    >>> list(normalized(["cafe", "\\u0301s"]))
    ['caf', 'é', 's']
    """
    rest = ""
    for piece in pieces:
        text = rest + piece
        cut = len(text) - 1
        while cut > 0 and _joins_previous(text[cut]) and len(text) - cut < LONGEST:
            cut -= 1
        cut = max(cut, 0)
        yield unicodedata.normalize("NFC", text[:cut])
        rest = text[cut:]
    yield unicodedata.normalize("NFC", rest)


def _joins_previous(character: str) -> bool:
    return unicodedata.combining(character) != 0 or character in _second_halves()


@functools.cache
def _second_halves() -> frozenset[str]:
    """Return the characters that combine with the one before although they are not combining marks."""
    vowels, finals = map(chr, range(0x1161, 0x1176)), map(chr, range(0x11A8, 0x11C3))  # of Hangul, by a formula
    decompositions = (unicodedata.decomposition(chr(code)).split() for code in range(0x20000))
    pairs = (parts for parts in decompositions if len(parts) == 2 and not parts[0].startswith("<"))
    return frozenset([*vowels, *finals, *(chr(int(second, 16)) for _, second in pairs)])
