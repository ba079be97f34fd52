"""Tables by rich: fitted to the width of a terminal, complete and plain in a pipe.

Cells are shown literally: `[red]` is not a colour, `:smile:` not an emoji, and an escape sequence has no effect.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from shutil import get_terminal_size
from typing import TYPE_CHECKING, TextIO

from tinygrad_chat.formatting import one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

GAP = 2  # characters between two cells
PIPE_WIDTH = 100_000  # characters: nothing is cut in a pipe
NARROWEST = 40  # characters: a terminal that reports fewer wraps lines by itself
SHORTEST_NAME = 12
UNKNOWN = "-"
"""The text of a cell whose value is unknown."""


@dataclass(frozen=True)
class Column:
    """A column: numbers are right-aligned; words are left-aligned, by `left`. `style` is that of its heading."""

    name: str
    cells: Sequence[str]
    left: bool = False
    style: str = "bold"

    @property
    def width(self) -> int:
        """The width of its widest cell or its name, in characters."""
        from rich.cells import cell_len

        return max(map(cell_len, (self.name, *map(one_line, self.cells))))


def open_console(stream: TextIO) -> Console:
    """Return a console as wide as the terminal; in a pipe, of practically unlimited width and without colours."""
    from tinygrad_chat.cli.console import TextConsole

    return TextConsole(stream, width=max(NARROWEST, get_terminal_size().columns) if stream.isatty() else PIPE_WIDTH)


def can_show(stream: TextIO, text: str) -> bool:
    """Return whether a stream's encoding has all characters of a text."""
    try:
        text.encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def print_table(console: Console, columns: Sequence[Column], *, styles: Sequence[str] = (), keep: int = 2) -> None:
    """Print columns, each with a cell for every row; `styles` has one style per row.

    Columns come in order of importance. On a narrow terminal the last are left out, and a line names them; the first
    `keep` always stay. The first column holds the names of the rows, which are shortened only as a last resort.
    """
    shown = _that_fit(columns, console.width, keep)
    table = _grid(show_header=any(column.name for column in shown))
    for column in shown:
        justify = "left" if column.left else "right"
        table.add_column(column.name, justify=justify, header_style=column.style, no_wrap=True)
    rows = zip(*(column.cells for column in shown), strict=True)
    _print(console, table, rows, styles)
    left_out = [column.name for column in columns[len(shown) :] if column.name]
    if left_out:
        console.print(f"\na wider terminal also shows: {', '.join(left_out)}")


def print_facts(console: Console, facts: Iterable[tuple[str, str]]) -> None:
    """Print names and their values; on a terminal, a long value wraps within its own column."""
    table = _grid(show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    _print(console, table, facts, ())


def _grid(*, show_header: bool) -> Table:
    from rich.table import Table

    return Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="none", show_header=show_header)


def _print(console: Console, table: Table, rows: Iterable[Sequence[str]], styles: Sequence[str]) -> None:
    from rich.text import Text

    for number, cells in enumerate(rows):
        table.add_row(*(Text(one_line(cell)) for cell in cells), style=styles[number] if styles else None)
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        console.out(line.rstrip(), highlight=False)


def _that_fit(columns: Sequence[Column], room: int, keep: int) -> Sequence[Column]:
    shown = list(columns)
    widths = [column.width for column in columns]
    while len(shown) > keep and sum(widths[: len(shown)]) + GAP * (len(shown) - 1) > room:
        shown.pop()
    first, *others = shown
    left = max(SHORTEST_NAME, room - sum(GAP + column.width for column in others))
    return [dataclasses.replace(first, cells=[_shortened(one_line(name), left) for name in first.cells]), *others]


def _shortened(name: str, room: int) -> str:
    """Return a name of at most `room` characters, cut in the middle: runs often differ only at the end."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(name) <= room:
        return name
    kept = room // 2
    while cell_len(name[-kept:]) > room // 2:  # some characters are two columns wide
        kept -= 1
    return f"{set_cell_size(name, room - 1 - cell_len(name[-kept:]))}…{name[-kept:]}"
