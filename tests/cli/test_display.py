"""What a person sees of training, on a terminal and in a pipe."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.cli.conftest import TINY_BIGRAM, Tgc
from tinygrad_chat.cli.display import Bar, format_record, open_display, open_progress
from tinygrad_chat.cli.streams import PatientStream
from tinygrad_chat.training import loop
from tinygrad_chat.training.events import Began
from tinygrad_chat.training.loop import train
from tinygrad_chat.training.run import Run

Start = Callable[..., Run]


class Terminal(io.StringIO):
    """A terminal that remembers what was written to it."""

    def isatty(self) -> bool:
        return True

    def text(self) -> str:
        """What stays on it, without colours, links and movements."""
        stays = re.sub(r"[^\n]*\x1b\[2K", "", self.getvalue())
        plain = re.sub(r"\x1b\]8;[^\x1b]*\x1b\\", "", stays)
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", plain)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal of 60 columns in colour."""
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "60", "LINES": "30"}.items():
        monkeypatch.setenv(name, value)
    return Terminal()


def show(run: Run, terminal: Terminal, **options: Any) -> str:
    with open_display(terminal, **options) as display:
        display.begin(run)
        for event in train(run):
            display.show(event)
    return terminal.text()


def test_the_bar_says_what_is_done_between_steps(start: Start, terminal: Terminal):
    run, described = start(eval_every=2, steps=4), list[tuple[str, str]]()
    with open_progress(terminal) as progress:
        assert progress is not None
        bar = Bar(PatientStream(terminal), progress)
        bar.begin(run)
        for event in train(run):
            bar.show(event)
            described.append((type(event).__name__, str(progress.tasks[0].description)))
    assert ("Began", "step 2  saving") in described
    assert ("Began", "step 2  evaluating") in described
    assert ("Evaluated", "step 2") in described
    assert described[-2:] == [("Logged", "step 4  writing the report"), ("Ended", "step 4  writing the report")]
    assert all(text.startswith("step 3  loss ") for name, text in described if name == "Stepped" and "step 3" in text)


def test_each_evaluation_begins_before_it_is_made(start: Start):
    activities = [(event.step, event.activity) for event in train(start(eval_every=3)) if isinstance(event, Began)]
    assert activities == [(step, activity) for step in (0, 3, 6) for activity in ("saving", "evaluating")]


def test_a_terminal_shows_a_few_lines_of_each_sample_and_the_last_one_whole(
    start: Start, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
):
    texts = iter([f"line {step}\n" * 9 for step in range(3)])
    monkeypatch.setattr(loop, "sample_texts", lambda *a, **k: iter([iter([next(texts)])]))
    shown = show(start(), terminal)
    assert [shown.count(f"line {step}") for step in range(3)] == [3, 3, 9]
    assert "step=3" in shown
    assert "step=4" not in shown
    first, second = (shown.index(f"val_loss={value}") for value in re.findall(r"val_loss=(\S+)", shown)[:2])
    assert first < shown.index("line 0") < second < shown.index("line 1")


def test_a_long_line_of_a_sample_is_broken_and_takes_no_more_room(
    start: Start, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(loop, "sample_texts", lambda *a, **k: iter([iter(["ten words " * 40])]))
    lines = show(start(steps=3), terminal).splitlines()
    excerpt = [line.rstrip() for line in lines if re.match("  (ten|words) ", line)]
    assert len(excerpt) == 3
    assert max(map(len, excerpt)) <= 60


@pytest.mark.parametrize("where", ["terminal", "pipe"])
def test_a_verbose_display_shows_every_line_and_every_sample_whole(
    start: Start, terminal: Terminal, monkeypatch: pytest.MonkeyPatch, where: str
):
    texts = iter([f"line {step}\n" * 9 for step in range(3)])
    monkeypatch.setattr(loop, "sample_texts", lambda *a, **k: iter([iter([next(texts)])]))
    monkeypatch.setattr(Terminal, "isatty", lambda self: where == "terminal")
    shown = show(start(), terminal, verbose=True)
    assert [shown.count(f"line {step}") for step in range(3)] == [9, 9, 9]
    assert re.findall(r"^step=(\d)", shown, re.MULTILINE) == list("0123456")


@pytest.mark.parametrize("where", ["terminal", "pipe"])
def test_a_quiet_display_shows_only_how_it_ends(
    start: Start, terminal: Terminal, monkeypatch: pytest.MonkeyPatch, where: str
):
    monkeypatch.setattr(Terminal, "isatty", lambda self: where == "terminal")
    lines = show(start(), terminal, quiet=True).splitlines()
    assert [line.split()[0] for line in lines] == ["done:", "best", "report:", "next:", "tgc", "tgc"]


@pytest.mark.profile("ci")
def test_quiet_and_verbose_are_short_flags_and_not_both(tgc: Tgc):
    assert tgc("train", *TINY_BIGRAM, "-q", "--out", "a")[1].startswith("done: 4 steps")
    assert tgc("train", *TINY_BIGRAM, "-v", "--out", "b")[1].count("\nstep=") == 5
    expected = "tgc: --quiet: says less, --verbose more; leave one of the two out\n"
    assert tgc("train", "-q", "-v") == (2, "", expected)


@pytest.mark.profile("ci")
def test_the_report_is_a_link_where_the_terminal_can_and_plain_elsewhere(
    start: Start, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
):
    run = start("a run")
    show(run, terminal)
    assert re.search(rf"\x1b\]8;[^;]*;{re.escape(run.folder.report.as_uri())}\x1b\\", terminal.getvalue())
    monkeypatch.setenv("TERM", "dumb")
    plain = Terminal()
    assert f"report: {run.folder.report}" in show(start("another"), plain).replace("another", "a run")
    assert "\x1b]8" not in plain.getvalue()


def test_the_style_of_a_line_is_not_the_bar_s(start: Start, terminal: Terminal):
    run = start()
    show(run, terminal)
    links = re.findall(r"\x1b\]8;[^;]*;file[^\x1b]*\x1b\\(.*?)\x1b\]8;;\x1b\\", terminal.getvalue(), re.DOTALL)
    assert links == [f"report: {run.folder.report}"]


def test_no_sample_speaks_to_the_terminal(start: Start, terminal: Terminal, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loop, "sample_texts", lambda *a, **k: iter([iter(["\x1b[2J\x07gone"])]))
    show(start(), terminal)
    assert "\x1b[2J" not in terminal.getvalue()
    assert "\x07" not in terminal.getvalue()
    assert "\\x1b[2J\\x07gone" in terminal.text()


def test_numbers_of_any_size_take_little_room_in_a_line():
    record = {"step": 3, "loss": 1.5e38, "val_perplexity": math.exp(700), "grad_norm": 2e200, "lr": 1e99}
    assert format_record(record) == "step=3 loss=1.5e38 val_perplexity=1.014e304 grad_norm=2e200 lr=1e+99"


def test_a_pipe_is_told_once_that_conversations_are_being_made():
    stream = io.StringIO()
    with open_display(stream) as display:
        for done in (0, 1000, 2000):
            display.progressed("making", done, 160_000)
    assert stream.getvalue() == "making 160,000 conversations\n"
