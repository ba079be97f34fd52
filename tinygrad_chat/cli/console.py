"""rich's console as we use it: a text is a text, whoever wrote it, and only rich's own escape sequences get through."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TextIO, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from tinygrad_chat.cli.streams import as_is
from tinygrad_chat.formatting import printable


class TextConsole(Console):
    """A console without markup, emoji codes and highlighting, in which no text holds a control character.

    It writes past the escaping of its stream, as its colours and its moves of the cursor must arrive.
    """

    def __init__(self, stream: TextIO, *, width: int) -> None:
        super().__init__(file=cast(TextIO, as_is(stream)), highlight=False, markup=False, emoji=False, width=width)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield what is to be written, its texts escaped. What must be aligned is escaped before, where it is made."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)
