"""Word wrap for a text that is still being written."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rich.cells import cell_len

from tinygrad_chat.cli.markdown import BLOCK, PLAIN, Span

_PIECE = re.compile(r"\n|[ \t]+|[^ \t\n]+")


class WordWrap:
    """Passes spans on, breaking lines between words to fit `width` columns; code blocks are not broken.

    Continuation lines begin `indent` columns from the left, but at most at half the width.
    A word is passed on when it is complete, since only then is its line known.
    """

    def __init__(self, width: int, indent: int = 0) -> None:
        self._width = max(width, 1)
        self._indent = " " * min(indent, self._width // 2)
        self._word: list[Span] = []
        self._gap = ""
        self.column = 0

    def feed(self, text: str, style: str = PLAIN) -> Iterator[Span]:
        """Yield what is complete after this span."""
        for piece in _PIECE.findall(text):
            if piece == "\n":
                yield from self.finish()
                yield self._moved("\n", PLAIN)
            elif style == BLOCK:  # unchanged
                yield from self.finish()
                yield self._moved(self._gap + piece, style)
            elif piece.isspace():
                yield from self.finish()
                self._gap += piece
            else:
                self._word.append((piece, style))

    @property
    def between_words(self) -> bool:
        """Whether the next text begins a new word."""
        return not self._word and (self.column == 0 or bool(self._gap))

    def finish(self) -> Iterator[Span]:
        """Yield the held word, which is now complete."""
        if not self._word:
            return
        if self.column + cell_len(self._gap) + sum(cell_len(text) for text, _ in self._word) > self._width:
            if self.column:  # else the word begins the line, without the gap before it
                yield self._moved("\n", PLAIN)
                if self._indent:
                    yield self._moved(self._indent, PLAIN)
        elif self._gap:
            yield self._moved(self._gap, PLAIN)
        word, self._word = self._word, []
        for text, style in word:
            yield self._moved(text, style)

    def _moved(self, text: str, style: str) -> Span:
        self._gap = ""
        self.column = 0 if text == "\n" else self.column + cell_len(text)
        if self.column > self._width:  # the terminal has wrapped it
            self.column %= self._width
        return text, style
