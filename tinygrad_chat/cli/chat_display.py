"""How a chat looks: answers as they are generated, our remarks between them, and why each token was chosen.

On a terminal, answers are styled as light Markdown and wrapped between words; in a pipe they are exactly as the model
wrote them, without tool calls.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Sequence
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Protocol, TextIO

from tinygrad_chat.cli.markdown import BLOCK, BOLD, CODE, PLAIN, MarkdownReader, Span
from tinygrad_chat.formatting import one_line, printable
from tinygrad_chat.text.conversations import CALL, RESULT

if TYPE_CHECKING:
    from tinygrad_chat.inference.request import TokenStep

REMARK = "dim"
ALTERNATIVES = 3  # alternatives beside each token in `/why`
TOKEN_WIDTH = 18  # characters of a token that `/why` shows
SHADES = ("red", "dark_orange", "yellow", "green_yellow", "green")  # of tokens by probability, a fifth of it each


class Page(Protocol):
    """Where a chat is shown."""

    def begin(self) -> None:
        """Begin an answer."""
        ...

    def step(self, step: TokenStep) -> None:
        """Show what a token adds to the answer."""
        ...

    def end(self) -> None:
        """End the answer."""
        ...

    def remark(self, text: str, style: str = REMARK) -> None:
        """Show a line that is not part of an answer."""
        ...

    def passage(self, pieces: Iterable[Span], indent: int = 0) -> None:
        """Show styled text in as many lines as it takes; continuation lines are indented."""
        ...

    def row(self, pieces: Iterable[Span]) -> None:
        """Show styled text in one line, as much as fits."""
        ...


class PlainPage:
    """A pipe, a file, or a terminal without styles. Answers go to `stream`; all else to `remarks`, or to it as well."""

    def __init__(self, stream: TextIO, remarks: TextIO | None = None) -> None:
        self._stream, self._remarks = stream, remarks or stream

    def begin(self) -> None:
        """Write nothing before an answer."""

    def step(self, step: TokenStep) -> None:
        """Write the text of a token, unless it belongs to a tool call."""
        if step.kind not in (CALL, RESULT):
            self._stream.write(step.text)
            self._stream.flush()

    def end(self) -> None:
        """End the line."""
        self._stream.write("\n")
        self._stream.flush()

    def remark(self, text: str, style: str = REMARK) -> None:
        """Write a line."""
        print(one_line(text), file=self._remarks, flush=True)

    def passage(self, pieces: Iterable[Span], indent: int = 0) -> None:
        """Write the texts."""
        print("".join(text for text, _ in pieces), file=self._remarks, flush=True)

    def row(self, pieces: Iterable[Span]) -> None:
        """Write a line."""
        self.remark("".join(text for text, _ in pieces).rstrip())


class StyledPage:
    """A terminal with styles."""

    def __init__(self, stream: TextIO) -> None:
        from tinygrad_chat.cli.console import TextConsole

        self._console = TextConsole(stream, width=get_terminal_size().columns)

    def begin(self) -> None:
        """Begin an answer at the terminal's current width."""
        from tinygrad_chat.cli.wrapping import WordWrap

        self._console.width = get_terminal_size().columns
        self._reader, self._lines = MarkdownReader(), WordWrap(self._console.width)
        self._call, self._result = "", ""

    def step(self, step: TokenStep) -> None:
        """Show the text of a token; a tool call is shown once its result is in."""
        if step.kind == CALL:
            self._call += step.text
        elif step.kind == RESULT:
            self._result += step.text
        else:
            self._show_call()
            self._show(self._reader.feed(printable(step.text)))

    def end(self) -> None:
        """Show what was held back, and end the line."""
        self._show_call()
        self._show(self._reader.finish())
        for text, style in self._lines.finish():
            self._write(text, _STYLES[style])
        self._write("\n", "")

    def _show(self, spans: Iterable[Span]) -> None:
        for span in spans:
            for text, style in self._lines.feed(*span):
                self._write(text, _STYLES[style])

    def _show_call(self) -> None:
        """Show a tool call and its result: on a line above the answer, or inline within it."""
        if not self._result:
            return
        call = one_line(f"{self._call} = {self._result}")
        self._call = self._result = ""
        if self._lines.column == 0 and self._lines.between_words:
            self.remark(call)
        else:
            self._show([("" if self._lines.between_words else " ", PLAIN), (f"({call})", CALL), (" ", PLAIN)])

    def remark(self, text: str, style: str = REMARK) -> None:
        """Write a text with its newlines replaced by spaces."""
        self.passage([(one_line(text), style)])

    def passage(self, pieces: Iterable[Span], indent: int = 0) -> None:
        """Write the texts, wrapped between words."""
        from tinygrad_chat.cli.wrapping import WordWrap

        lines = WordWrap(get_terminal_size().columns, indent)
        for text, style in pieces:
            for part, its_style in lines.feed(printable(text), style):
                self._write(part, its_style)
        for part, its_style in (*lines.finish(), ("\n", "")):
            self._write(part, its_style)

    def row(self, pieces: Iterable[Span]) -> None:
        """Write as much as fits on one line."""
        from rich.text import Text

        line = Text.assemble(*((one_line(text), style) for text, style in pieces))
        self._console.print(line, no_wrap=True, overflow="ellipsis")

    def _write(self, text: str, style: str) -> None:
        from rich.text import Text

        self._console.print(Text(text, style), end="", soft_wrap=True)


_STYLES = {PLAIN: "", BOLD: "bold", CODE: "cyan", BLOCK: "cyan", CALL: REMARK}


def page_for(stream: TextIO) -> Page:
    """Return the page that suits a stream; a pipe or a file gets the answers alone, and stderr the remarks."""
    if is_styled(stream):
        return StyledPage(stream)
    return PlainPage(stream, stream if stream.isatty() else sys.stderr)


def is_styled(stream: TextIO) -> bool:
    """Return whether a stream is a terminal on which styles are wanted."""
    return stream.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")


def show_why(
    page: Page, steps: Sequence[TokenStep], names: Sequence[str], alternatives: Sequence[Sequence[str]]
) -> None:
    """Show how likely each token of an answer was, and its likeliest alternatives; both are given as text."""
    page.passage((step.text, _shade(step)) for step in steps)
    for step, name, others in zip(steps, names, alternatives, strict=True):
        token = _visible(name)
        pieces = [(f"{_percent(step.logprob)}  ", _shade(step)), (f"{token:{TOKEN_WIDTH}}  ", "")]
        if step.forced:
            pieces.append(("the calculator's", REMARK))
        else:
            found = zip(step.alternatives, others, strict=True)
            likely = [
                f"{_visible(other)} {_percent(logprob).strip()}"
                for (token_, logprob), other in found
                if token_ != step.token
            ]
            pieces.append(("  ".join(likely[:ALTERNATIVES]), REMARK))
        page.row(pieces)


def _percent(logprob: float) -> str:
    return f"{100 * math.exp(logprob):5.1f} %"


def _shade(step: TokenStep) -> str:
    if step.forced:
        return REMARK
    return SHADES[min(int(math.exp(step.logprob) * len(SHADES)), len(SHADES) - 1)]


def _visible(name: str) -> str:
    """Return a token in quotes, so that its spaces are visible."""
    return one_line(repr(name), most=TOKEN_WIDTH)
