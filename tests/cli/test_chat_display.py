"""What a chat shows on a terminal: styles, lines that break between words, calls of the calculator, probabilities."""

from __future__ import annotations

import io
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len

from tests.cli.test_display import Terminal, terminal  # noqa: F401 - a fixture
from tinygrad_chat.cli.chat_display import Page, PlainPage, StyledPage, page_for, show_why
from tinygrad_chat.cli.wrapping import WordWrap
from tinygrad_chat.inference.request import TokenStep

BOLD, CYAN, DIM, END = "\x1b[1m", "\x1b[36m", "\x1b[2m", "\x1b[0m"


def step(text: str, kind: str = "text", *, probability: float = 1.0) -> TokenStep:
    return TokenStep(
        0, text, math.log(probability), ((0, math.log(probability)), (1, -3.0)), kind == "python_output", kind
    )


def show(page: Page, *steps: TokenStep) -> None:
    page.begin()
    for each in steps:
        page.step(each)
    page.end()


def test_an_answer_has_styles_and_its_words_stay_whole(terminal: Terminal, monkeypatch: pytest.MonkeyPatch):  # noqa: F811
    monkeypatch.setenv("COLUMNS", "20")
    show(page_for(terminal), *map(step, ["Use ", "`str", ".split`", " to cut", " a **te", "xt** into", " words."]))
    assert terminal.getvalue() == f"Use {CYAN}str.split{END} to cut\na {BOLD}text{END} into words.\n"


def test_nothing_is_drawn_twice(terminal: Terminal):  # noqa: F811
    show(
        page_for(terminal),
        *map(step, "Words **and** `more` of them, for more than a line of sixty columns has."),
    )
    assert "\r" not in terminal.getvalue()
    assert "\x1b[2K" not in terminal.getvalue()


def test_a_call_of_the_calculator_is_shown_dim_where_it_was_made(terminal: Terminal):  # noqa: F811
    call = [step(""), step("347*28", "python"), step("", "python"), step("9716", "python_output")]
    show(page_for(terminal), *call, step("It is "), step("9716."))
    show(page_for(terminal), step("It is"), *call, step("9716."))
    shown = terminal.getvalue().replace(f"{END} {DIM}", " ")
    assert shown == f"{DIM}347*28 = 9716{END}\nIt is 9716.\nIt is {DIM}(347*28 = 9716){END} 9716.\n"


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_without_colours_an_answer_is_as_it_was_written(
    terminal: Terminal,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
):
    monkeypatch.setenv(name, value)
    page = page_for(terminal)
    show(page, step("a **b** `c`"))
    page.remark("said")
    assert terminal.getvalue() == "a **b** `c`\nsaid\n"


def test_a_file_has_the_answers_alone(capsys: pytest.CaptureFixture[str]):
    file = io.StringIO()
    page = page_for(file)
    page.remark("/help lists the commands")
    show(page, step("an answer"))
    page.passage([("what the commands do", "")])
    page.row([("a row", "")])
    assert file.getvalue() == "an answer\n"
    assert capsys.readouterr().err == "/help lists the commands\nwhat the commands do\na row\n"


def test_what_a_model_writes_speaks_to_no_terminal(terminal: Terminal):  # noqa: F811
    show(page_for(terminal), step("a\x1b]0;title\x07 **\x1b[2J**"))
    assert terminal.getvalue() == f"a\\x1b]0;title\\x07 {BOLD}\\x1b[2J{END}\n"


def test_why_has_a_colour_for_each_probability_and_a_table_without(terminal: Terminal):  # noqa: F811
    steps = [
        step("", "python"),
        step("sure", probability=0.99),
        step("not", probability=0.05),
        step("9", "python_output"),
    ]
    names, alternatives = ["<call>", "sure", "not", "9"], [["z", "x"], ["sure", "x"], ["not", "y"], ["9", "z"]]
    show_why(page_for(terminal), steps, names, alternatives)
    first = terminal.getvalue().splitlines()[0]
    assert first == f"\x1b[32msure{END}\x1b[31mnot{END}{DIM}9{END}"
    plain = Terminal()
    show_why(PlainPage(plain), steps, names, alternatives)
    assert [line.split() for line in plain.getvalue().splitlines()] == [
        ["surenot9"],
        ["100.0", "%", "'<call>'", "'x'", "5.0", "%"],
        ["99.0", "%", "'sure'", "'x'", "5.0", "%"],
        ["5.0", "%", "'not'", "'y'", "5.0", "%"],
        ["100.0", "%", "'9'", "the", "calculator's"],
    ]


def test_a_row_is_one_line_however_narrow(terminal: Terminal, monkeypatch: pytest.MonkeyPatch):  # noqa: F811
    monkeypatch.setenv("COLUMNS", "12")
    StyledPage(terminal).row([("a long text", ""), ("and another", "bold")])
    assert terminal.text() == "a long text…\n"


@given(st.lists(st.text("ab \n語", max_size=9), max_size=9), st.integers(4, 12), st.integers(0, 9))
@example([" ", "aaaaa a"], 5, 0)  # a space before a word that fills the line
def test_no_line_of_short_words_is_too_wide_and_no_word_is_lost(pieces: list[str], width: int, indent: int):
    lines = WordWrap(width, indent)
    shown = "".join(text for piece in pieces for text, _ in lines.feed(piece))
    shown += "".join(text for text, _ in lines.finish())
    whole = "".join(pieces)
    assert shown.split() == whole.split()
    longest = max(map(cell_len, whole.split()), default=0)
    if longest <= width - min(indent, width // 2):
        assert all(cell_len(line.strip()) <= width for line in shown.split("\n"))


def test_remarks_break_between_words(terminal: Terminal, monkeypatch: pytest.MonkeyPatch):  # noqa: F811
    monkeypatch.setenv("COLUMNS", "20")
    StyledPage(terminal).remark("a remark that takes more than one line")
    assert terminal.text() == "a remark that takes\nmore than one line\n"


def test_what_is_said_of_a_command_stays_in_its_column(terminal: Terminal, monkeypatch: pytest.MonkeyPatch):  # noqa: F811
    monkeypatch.setenv("COLUMNS", "24")
    StyledPage(terminal).passage([("/save FILE ", "bold"), ("write the conversation to a file", "")], indent=11)
    assert terminal.text() == "/save FILE write the\n           conversation\n           to a file\n"
