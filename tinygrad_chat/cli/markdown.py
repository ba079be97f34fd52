"""Light Markdown for a text still being written: bold, code, lists and headings, each styled once it is certain.

Text that may begin markup is held until that is known, for part of a line at most; all else is passed on at once. So
nothing that was shown is ever redrawn, and signs that turn out not to be markup, as in `2**10`, are shown.

>>> list(spans(["A **bo", "ld** word, `co", "de` and 2**10."]))
[('A ', ''), ('bold', 'bold'), (' word, ', ''), ('code', 'code'), (' and 2', ''), ('**', ''), ('10.', '')]
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

PLAIN, BOLD, CODE, BLOCK = "", "bold", "code", "block"
"""The styles of spans; BLOCK is a fenced code block, whose lines are not to be broken."""

LONGEST_SPAN = 200  # characters after which an unclosed sign is plain text
_START_OF_LINE = re.compile(r" {0,8}(`{0,2}|[-*+]|#{1,6})")  # may become one of the patterns below
_BULLET = re.compile(r"( {0,8})[-*+] +(?=\S)")
_HEADING = re.compile(r"#{1,6} +(?=\S)")
_FENCE = re.compile(r" {0,8}```[^\n]*\n")
_SIGN = re.compile(r"`+|\*\*|\n")

Span = tuple[str, str]
"""A text and its style."""


def spans(pieces: Iterable[str]) -> Iterator[Span]:
    """Yield the spans of a text that comes in pieces, each as early as possible."""
    reader = MarkdownReader()
    for piece in pieces:
        yield from reader.feed(piece)
    yield from reader.finish()


class MarkdownReader:
    """Takes a text piece by piece and yields its spans."""

    def __init__(self) -> None:
        self._held = ""
        self._before = "\n"  # the character before what is held
        self._style = PLAIN  # of the line, or BLOCK between fences
        self._ended = False

    def feed(self, piece: str) -> Iterator[Span]:
        """Yield what this piece makes certain."""
        self._held += piece
        while self._held and (found := self._next()) is not None:
            length, text, style = found
            self._before, self._held = self._held[length - 1], self._held[length:]
            if text:
                yield text, style

    def finish(self) -> Iterator[Span]:
        """Yield what was held: the text has ended."""
        self._ended = True
        yield from self.feed("")

    def _next(self) -> tuple[int, str, str] | None:
        """Return (characters consumed, text to show for them, its style), or None if more text is needed."""
        if self._before == "\n" and (found := self._at_start_of_line()) is not None:
            return found or None
        if self._style == BLOCK:
            end = self._held.find("\n") + 1 or len(self._held)
            return end, self._held[:end], BLOCK
        return self._within_line()

    def _at_start_of_line(self) -> tuple[int, str, str] | tuple[()] | None:
        """Return as `_next` does, but () if more text is needed, and None if no markup begins the line."""
        if fence := _FENCE.match(self._held):
            self._style = PLAIN if self._style == BLOCK else BLOCK
            return fence.end(), "", PLAIN
        if not self._ended and (_START_OF_LINE.fullmatch(self._held) or re.fullmatch(r" {0,8}```[^\n]*", self._held)):
            return ()
        if self._style == BLOCK:
            return None
        self._style = PLAIN
        if bullet := _BULLET.match(self._held):
            return bullet.end(), f"{bullet[1]}• ", PLAIN
        if heading := _HEADING.match(self._held):
            self._style = BOLD
            return heading.end(), "", PLAIN
        if not self._ended and re.fullmatch(r" {0,8}([-*+]|#{1,6}) +", self._held):
            return ()
        return None

    def _within_line(self) -> tuple[int, str, str] | None:
        sign = _SIGN.search(self._held)
        if sign is None:
            sure = len(self._held) - (self._held.endswith("*") and not self._ended)
            return (sure, self._held[:sure], self._style) if sure else None
        if sign.start():
            return sign.start(), self._held[: sign.start()], self._style
        if sign[0] == "\n":
            return 1, "\n", PLAIN
        as_it_is = sign.end(), sign[0], self._style
        opens = sign[0] != "**" or not (self._before.isalnum() or self._before == "*")
        if not opens:
            return as_it_is
        closed = re.compile(rf"{re.escape(sign[0])}(?=\S)([^\n]*?\S)??{re.escape(sign[0])}(?![`*])").match(self._held)
        if closed and closed[1] and (self._ended or closed.end() < len(self._held)):
            return closed.end(), closed[1], CODE if sign[0][0] == "`" else BOLD
        may_close = "\n" not in self._held and len(self._held) <= LONGEST_SPAN and not self._ended
        return None if may_close else as_it_is
