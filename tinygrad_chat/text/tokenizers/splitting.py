r"""Splits text into pre-tokens: the pieces within which merges happen, and across which they never do.

The patterns are written in the usual way, with `\p{L}` for letters and `\p{N}` for numbers. Python's `re` supports
neither, so they are translated to character classes with the help of `unicodedata`.

>>> Splitter("nanochat").split("It's 2026, isn't it?")
['It', "'s", ' ', '20', '26', ',', ' isn', "'t", ' it', '?']
"""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tinygrad_chat.option import expect

_CONTRACTIONS = r"'(?i:[sdmt]|ll|ve|re)"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_SIGNS = r" ?[^\s\p{L}\p{N}]+"
_BLANKS = r"\s+(?!\S)|\s+"

PATTERNS = {
    "nanochat": rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1,2}}|{_SIGNS}[\r\n]*|\s*[\r\n]|{_BLANKS}",
    "llama3": rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1,3}}|{_SIGNS}[\r\n]*|\s*[\r\n]|{_BLANKS}",
    "qwen2": rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}|{_SIGNS}[\r\n]*|\s*[\r\n]|{_BLANKS}",
    "gpt2": rf"'(?:[sdmt]|ll|ve|re)| ?\p{{L}}+| ?\p{{N}}+|{_SIGNS}|{_BLANKS}",
    "smollm2": rf"'(?:[sdmt]|ll|ve|re)| ?\p{{L}}+|\p{{N}}|{_SIGNS}|\s+(?![^\s\p{{N}}])|\s+",
}
"""How text is split, by the name of a model that does so. The main difference is how many digits a pre-token has:
one (qwen2, smollm2), up to two (nanochat), up to three (llama3), any number (gpt2)."""

WHITE_SPACE = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""Unicode's White_Space. Python's own class also has four control characters, U+001C to U+001F."""

CHUNK = 1 << 16  # characters split at a time
LONGEST = 1 << 16  # characters up to which a piece is held whole
HEAD = 4  # characters that decide what kind of piece it is: a contraction and what follows it
_BEYOND = re.compile("[\U00010000-\U0010ffff]")
_STAND_INS = {"L": "\u05d0", "N": "\u0660"}  # a letter and a number within the basic plane
_OTHER = "\u2603"


class Part(NamedTuple):
    """A part of a piece that is longer than LONGEST; the `last` one ends the piece."""

    text: str
    last: bool


class Splitter:
    """Splits text by one of the PATTERNS."""

    def __init__(self, pattern: str) -> None:
        expect("pattern", pattern, choices=tuple(PATTERNS))
        self._find = _compiled(pattern).findall

    def split(self, text: str) -> list[str]:
        """Return the pieces of a whole text; joined, they are the text."""
        if not _BEYOND.search(text):
            return self._find(text)
        # Classes that reach beyond the basic plane (U+FFFF) are six times as slow: characters there get stand-ins.
        lengths = map(len, self._find(_BEYOND.sub(_stand_in, text)))
        ends = list(itertools.accumulate(lengths, initial=0))
        return [text[start:end] for start, end in itertools.pairwise(ends)]

    def split_document(self, texts: Iterable[str]) -> Iterator[list[str] | Part]:
        """Yield the pieces of a text that comes cut anywhere, a list at a time, each as soon as it is certain.

        A piece longer than LONGEST comes in parts, so that memory stays bounded; only blanks after a line end are held
        until they are over.
        """
        rest, begun = "", 0  # text not certain yet, and how much of it was already yielded as a Part
        fresh = ""
        for text in _chunks(texts):
            fresh += text
            if len(fresh) < len(rest):
                continue  # so that little is split twice
            pieces, fresh = self.split(rest + fresh), ""
            certain = _certain(pieces)
            if begun and certain:
                yield Part(pieces[0][begun:], last=True)
                begun, pieces, certain = 0, pieces[1:], certain - 1
            if certain:
                yield pieces[:certain]
            rest = "".join(pieces[certain:])
            if pieces[certain:] and len(pieces[certain]) > LONGEST:
                open_piece = pieces[certain]
                yield Part(open_piece[begun:-HEAD], last=False)
                rest = open_piece[:HEAD] + rest[len(open_piece) - HEAD :]  # still the same kind of piece
                begun = HEAD
        pieces = self.split(rest + fresh)
        if begun:
            yield Part(pieces[0][begun:], last=True)
            pieces = pieces[1:]
        if pieces:
            yield pieces


def _certain(pieces: list[str]) -> int:
    """Return how many leading pieces stay the same whatever text follows.

    The last may change, and so may one that begins where a contraction would still fit, and blanks at the end.
    """
    number, length = len(pieces), 0
    while number and (length < HEAD or pieces[number - 1].isspace()):
        number -= 1
        length += len(pieces[number])
    return number


def _chunks(texts: Iterable[str]) -> Iterator[str]:
    """Yield the same text cut into pieces of CHUNK to 2 CHUNK characters, except for the last."""
    parts: list[str] = []
    length = 0
    for text in texts:
        for start in range(0, len(text), CHUNK):
            part = text[start : start + CHUNK]
            parts.append(part)
            length += len(part)
            if length >= CHUNK:
                yield "".join(parts)
                parts, length = [], 0
    yield "".join(parts)


def _stand_in(found: re.Match[str]) -> str:
    return _STAND_INS.get(unicodedata.category(found[0])[0], _OTHER)


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    classes = {r"\p{L}": _class("L"), r"\p{N}": _class("N"), r"\s": WHITE_SPACE}

    def translate(found: re.Match[str]) -> str:
        if found[0] == r"\S":
            return f"[^{WHITE_SPACE}]"
        if found[0] in classes:
            return f"[{classes[found[0]]}]"
        return functools.reduce(lambda text, name: text.replace(name, classes[name]), classes, found[0])

    return re.compile(re.sub(r"\[[^]]*\]|\\p\{.\}|\\[sS]", translate, PATTERNS[pattern]))


@functools.cache
def _class(category: str) -> str:
    """Return the characters of a general category within the basic plane, as the ranges of a character class."""
    characters = map(chr, range(1 << 16))
    groups = itertools.groupby(characters, key=lambda character: unicodedata.category(character)[0] == category)
    runs = [list(run) for belongs, run in groups if belongs]
    return "".join(f"{run[0]}-{run[-1]}" for run in runs)
