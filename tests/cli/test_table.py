"""Tables: whole and plain in a pipe, fitted to a terminal, and what stands in a cell is a text and nothing else."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from tinygrad_chat.cli.display import open_progress
from tinygrad_chat.cli.table import Column, open_console, print_facts, print_table

NAMES = ["a", "[red]b[/red]", ":smile:", "x" * 300]
COLUMNS = [
    Column("run", NAMES, left=True),
    Column("loss", ["1.5", "22.25", "3", "-"]),
    Column("note", ["some words", "", "more", "/a/path/" + "y" * 300], left=True),
]


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def piped(columns: list[Column]) -> list[str]:
    stream = io.StringIO()
    print_table(open_console(stream), columns)
    return stream.getvalue().splitlines()


def on_terminal(columns: list[Column], width: int, *, keep: int = 2) -> list[str]:
    stream = Terminal()
    print_table(Console(file=stream, width=width, color_system=None, markup=False, emoji=False), columns, keep=keep)
    return stream.getvalue().splitlines()


def test_in_a_pipe_every_row_is_one_line_with_all_that_it_says(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "40")
    lines = piped(COLUMNS)
    assert len(lines) == 1 + len(NAMES)
    for line, *cells in zip(lines[1:], *(column.cells for column in COLUMNS), strict=True):
        assert line.split(maxsplit=2) == [cell for cell in cells if cell]
    assert all(line == line.rstrip() for line in lines)


def test_numbers_stand_at_the_right_and_words_at_the_left():
    assert piped([Column("run", ["a", "bcd"], left=True), Column("n", ["1", "100"])]) == [
        "run    n",
        "a      1",
        "bcd  100",
    ]


@pytest.mark.parametrize("width", [30, 60, 80])
def test_on_a_terminal_no_line_is_too_long_and_what_is_left_out_is_named(width: int):
    columns = [
        Column("run", ["a", "\u65e5\u672c\u8a9e" * 10], left=True),
        *(Column(f"column{n}", ["1", "22"]) for n in range(9)),
    ]
    head, *rows = lines = on_terminal(columns, width)
    assert max(map(cell_len, lines[:3])) <= width
    assert head.split()[:2] == ["run", "column0"]
    shown = len(head.split()) - 1
    assert shown < 9
    assert "\n".join(lines).split("a wider terminal also shows: ")[1].split() == [
        f"column{n}," for n in range(shown, 8)
    ] + ["column8"]
    assert ("\u2026" in rows[1].split()[0]) == (width < 80)  # only where it has to be
    assert [line.split()[1] for line in rows[:2]] == ["1", "22"]


@pytest.mark.parametrize("letter", ["a", "\u8a9e"])
def test_a_name_without_room_keeps_its_beginning_and_its_end(letter: str):
    names = [f"run-{letter * 40}-{number}" for number in (1, 2)]
    lines = on_terminal([Column("run", names, left=True), Column("loss", ["1.0", "2.0"])], 30)
    assert all(cell_len(line) <= 30 for line in lines)
    for line, end in zip(lines[1:], ("1  ", "2  "), strict=True):
        assert line.startswith(f"run-{letter}")
        assert f"{letter}-{end}" in line


def test_columns_that_must_stay_do():
    columns = [Column("a", ["x" * 20], left=True), Column("b", ["1" * 9]), Column("c", ["2" * 9]), Column("d", ["3"])]
    assert on_terminal(columns, 36, keep=3)[0].split() == ["a", "b", "c"]
    assert on_terminal(columns, 36, keep=2)[0].split() == ["a", "b"]


def test_control_characters_and_line_breaks_do_not_leave_their_cell():
    (line,) = piped([Column("", ["a\x1b[31mb\nc\x9bd\ud800"], left=True), Column("", ["1"])])
    assert line == "a\\x1b[31mb c\\x9bd\\ud800  1"


def test_what_a_console_is_handed_it_shows_as_letters():
    stream = Terminal()
    console = open_console(stream)
    console.print("[red]a[/red] :smile: \x1b]0;t\x1b", Text("b\x9b31m"))
    assert "[red]a[/red] :smile: \\x1b]0;t\\x1b b\\x9b31m" in stream.getvalue()


def test_facts_go_on_below_themselves_on_a_terminal_and_nowhere_else():
    facts = [("name", "word " * 20 + "[bold]end"), ("other", "short")]
    stream, terminal = io.StringIO(), Terminal()
    print_facts(open_console(stream), facts)
    assert [line.split(maxsplit=1) for line in stream.getvalue().splitlines()] == [[name, text] for name, text in facts]
    print_facts(Console(file=terminal, width=40, color_system=None, markup=False), facts)
    lines = terminal.getvalue().splitlines()
    assert len(lines) > 3
    assert max(map(len, lines)) <= 40
    assert all(line.startswith("       ") for line in lines[1:-1])
    assert "[bold]end" in terminal.getvalue()


@pytest.mark.parametrize("columns", ["0", "1", "20", "60", "", "many"])
def test_whatever_width_a_terminal_claims_numbers_stay_whole(monkeypatch: pytest.MonkeyPatch, columns: str):
    monkeypatch.setenv("COLUMNS", columns)
    stream = Terminal()
    table = [Column("run", ["a-long-name" * 3], left=True), *(Column(f"n{k}", ["1,234,567.5"]) for k in range(6))]
    print_table(open_console(stream), table)
    print_facts(open_console(stream), [("memory", "of 1,234,567.5 GiB some 2,345,678.25 GiB, 3,456 times")])
    words = stream.getvalue().split()
    assert {"1,234,567.5", "2,345,678.25", "3,456"} <= set(words)


def test_a_dumb_terminal_gets_lines_and_no_bar(monkeypatch: pytest.MonkeyPatch):
    for terminal, is_shown in (("dumb", False), ("xterm", True)):
        monkeypatch.setenv("TERM", terminal)
        with open_progress(Terminal()) as progress:
            assert (progress is not None) == is_shown


def test_no_command_imports_rich_before_it_prints():
    program = "import sys, tinygrad_chat.cli.app; sys.exit(any(name.startswith('rich') for name in sys.modules))"
    subprocess.run([sys.executable, "-c", program], check=True)
