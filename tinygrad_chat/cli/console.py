"""rich's console without markup: all text is shown literally, and only rich's own escape sequences get through."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TextIO, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from tinygrad_chat.cli.streams import as_is
from tinygrad_chat.formatting import printable


class TextConsole(Console):
    """A console without markup, emoji codes or highlighting, which escapes control characters in text.

    It bypasses its stream's escaping, since its colours and cursor movements must get through.
    """

    def __init__(self, stream: TextIO, *, width: int) -> None:
        super().__init__(file=cast(TextIO, as_is(stream)), highlight=False, markup=False, emoji=False, width=width)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield segments with their text escaped. Text that must be aligned is escaped earlier, where it is made."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)
