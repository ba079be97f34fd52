"""Lines that break between words, for a text that is still being written."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rich.cells import cell_len

from tinygrad_chat.cli.markdown import BLOCK, PLAIN, Span

_PIECE = re.compile(r"\n|[ \t]+|[^ \t\n]+")


class WordWrap:
    """Takes spans and hands them on with line ends between, so that no line is wider than `width` columns.

    Lines that go on begin `indent` columns from the left, or in the middle where that is nearer.
    A word is handed on when it is complete, as only then it is known where it belongs.
    """

    def __init__(self, width: int, indent: int = 0) -> None:
        self._width = max(width, 1)
        self._indent = " " * min(indent, self._width // 2)
        self._word: list[Span] = []
        self._gap = ""
        self.column = 0

    def feed(self, text: str, style: str = PLAIN) -> Iterator[Span]:
        """Yield what is complete now that a span has come."""
        for piece in _PIECE.findall(text):
            if piece == "\n":
                yield from self.finish()
                yield self._moved("\n", PLAIN)
            elif style == BLOCK:  # as it stands
                yield from self.finish()
                yield self._moved(self._gap + piece, style)
            elif piece.isspace():
                yield from self.finish()
                self._gap += piece
            else:
                self._word.append((piece, style))

    @property
    def between_words(self) -> bool:
        """Whether what comes next stands apart from what is there."""
        return not self._word and (self.column == 0 or bool(self._gap))

    def finish(self) -> Iterator[Span]:
        """Yield the word that was held: it is complete."""
        if not self._word:
            return
        if (
            self.column
            and self.column + cell_len(self._gap) + sum(cell_len(text) for text, _ in self._word) > self._width
        ):
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
        if self.column > self._width:  # the terminal has broken it
            self.column %= self._width
        return text, style
