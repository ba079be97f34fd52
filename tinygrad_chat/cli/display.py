"""What a training run looks like: a progress bar on a terminal, plain lines in a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from shutil import get_terminal_size
from typing import Any, TextIO, cast

from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from tinygrad_chat.cli.console import TextConsole
from tinygrad_chat.cli.description import describe
from tinygrad_chat.cli.streams import EscapedStream, PatientStream, as_is, escaped_streams
from tinygrad_chat.files import real_path
from tinygrad_chat.formatting import count, decimal_number, one_line, printable
from tinygrad_chat.reports.content import read_report
from tinygrad_chat.training.events import (
    Began,
    Ended,
    Evaluated,
    Event,
    Logged,
    ProductsDiffer,
    RolledBack,
    Saved,
    StayedEager,
    Stepped,
)
from tinygrad_chat.training.run import Run

_PLACES = {"grad_norm": 3, "tokens_per_second": 0}

_BESIDE_A_BAR = ("step", "loss", "reward", "val_reward", "val_loss", "val_bpb", "tokens_per_second")

MAX_COMMANDS = 2
INDENT = "  "
EXCERPT = 3  # lines of a sample that stay above a bar
COUNTED = {"merging": "pairs", "evaluating": "tokens", "answering": "problems", "making": "conversations"}
"""Units other than bytes, by the first word of the activity."""
LONGEST_LABEL = 60  # characters of the label before a bar
PERCENTAGE = "{task.percentage:>3.0f}%"


def format_record(record: Mapping[str, Any]) -> str:
    """Return a log record as one line, for people and for scripts that split at spaces.

    >>> format_record({"step": 100, "loss": 2.34561, "lr": 0.002})
    'step=100 loss=2.3456 lr=0.002'
    """
    numbers = {name: value for name, value in record.items() if name != "sources"}
    return " ".join(f"{name}={_written(name, value)}" for name, value in numbers.items())


def _written(name: str, value: float) -> str:
    if name == "lr":
        return f"{value:.3g}"
    return str(value) if name == "step" else decimal_number(value, _PLACES.get(name, 4))


def _with_speed(event: Logged) -> dict[str, Any]:
    return event.record | {name: value for name, value in event.timing.items() if name == "tokens_per_second"}


class Lines:
    """Plain lines, each complete when it is printed. A `quiet` display shows only problems and how the run ended; a
    `verbose` one shows every sample in full."""

    def __init__(self, stream: PatientStream, *, quiet: bool = False, verbose: bool = False) -> None:
        self._stream = stream
        self._escaped = EscapedStream(stream)
        self._quiet = quiet
        self._verbose = verbose
        self._sample = ""

    @property
    def error(self) -> OSError | None:
        """Why output can no longer be written: a full disk, a closed terminal, or a closed pipe as with `| head`."""
        return self._stream.error

    def line(self, text: str, style: str = "") -> None:
        """Print a message, in one line. `style` is for displays that have colours."""
        self._print(one_line(text), style)

    def _print(self, text: str, style: str) -> None:
        print(text, file=self._escaped, flush=True)

    def progressed(self, activity: str, done: int, total: int) -> None:
        """Report that a corpus has been fetched, or that conversations are being made."""
        if activity == "fetching" and done == total:
            self.line(f"fetched {total:,} bytes")
        if activity == "making" and not done:
            self.line(of_how_much(activity, total))

    def begin(self, run: Run) -> None:
        """Say what is about to be trained."""
        self._run = run
        for text in [] if self._quiet else describe(run):
            self.line(text, style="dim")

    def show(self, event: Event) -> None:
        """Print a line of the log, or at the end the newest sample and the summary."""
        if isinstance(event, Logged):
            if not self._quiet:
                self._show_record(event)
                for name, evaluation in event.record.get("sources", {}).items():
                    self.line(f"{INDENT}{format_record(evaluation)} {printable(name)}", style="dim")
            self._tell_of_a_spike(event)
            if _is_intermediate_evaluation(event):
                self._show_sample()
        elif isinstance(event, RolledBack):
            self.line(f"{event.reason}; rolling back to step {event.step}, continuing with other batches")
        elif isinstance(event, StayedEager):
            self.line(
                f"step {event.step}: no CUDA graph ({printable(event.reason)}); steps stay eager, as by --no-graph"
            )
        elif isinstance(event, ProductsDiffer):
            self.line(
                f"step {event.step}: products.json cannot be used ({printable(event.reason)}); from here on sums are "
                "rounded differently"
            )
        elif isinstance(event, Evaluated):
            self._sample = printable(event.sample)
        elif isinstance(event, Ended):
            if not (event.interrupted or self._quiet):
                self._print(f"\n{self._sample}\n", "cyan")
            for text, style in summarize(self._run, event):
                self.line(text, style)

    def _show_record(self, event: Logged) -> None:
        self.line(format_record(_with_speed(event)))

    def _show_sample(self) -> None:
        if self._verbose:
            self._print(f"\n{self._sample}\n", "cyan")

    def _tell_of_a_spike(self, event: Logged) -> None:
        spike = event.record.get("skipped_spike")
        if spike is not None:
            step, loss = event.record["step"], event.record["loss"]
            above = f"{decimal_number(spike, 1)} standard deviations above the recent mean"
            self.line(f"step {step}: the loss {decimal_number(loss)} is {above}; update skipped")


def _is_intermediate_evaluation(event: Logged) -> bool:
    """Return whether a log record holds an evaluation that is not the last: an update follows it."""
    return "val_loss" in event.record and "loss" in event.record


class Bar(Lines):
    """A progress bar with the newest loss or the current activity; only evaluations stay above it, each with the
    beginning of its sample. A `verbose` one also shows all that a pipe would get."""

    def __init__(self, stream: PatientStream, progress: Progress, *, verbose: bool = False) -> None:
        super().__init__(stream, verbose=verbose)
        self._progress = progress
        self._task = progress.add_task("reading", total=None)

    def _print(self, text: str, style: str) -> None:
        print_above(self._progress, text, style)

    def progressed(self, activity: str, done: int, total: int) -> None:
        """Move the bar along with the download, the reading, or the merges of a tokenizer."""
        self._progress.update(self._task, description=of_how_much(activity, total), completed=done, total=total)

    def begin(self, run: Run) -> None:
        """Say what is about to be trained, and start the bar."""
        super().begin(run)
        self._progress.reset(self._task, total=1.0, description=f"step {run.progress.step}")

    def show(self, event: Event) -> None:
        """Move the bar, name the current activity, or print an evaluation or the end."""
        super().show(event)
        if isinstance(event, Stepped):
            self._progress.update(self._task, completed=event.fraction)
            self._describe(event.step, f"loss {decimal_number(event.loss, 3)}")
        elif isinstance(event, Began):
            self._describe(event.step, event.activity)
        elif isinstance(event, Saved | Evaluated):
            self._describe(event.step)
        elif isinstance(event, Logged) and "loss" not in event.record:
            self._describe(event.record["step"], "writing the report")

    def _describe(self, step: int, what: str = "") -> None:
        self._progress.update(self._task, description=f"step {step}  {what}".rstrip())

    def _show_record(self, event: Logged) -> None:
        if self._verbose:
            super()._show_record(event)
        elif "val_loss" in event.record:
            record = _with_speed(event)
            self.line(format_record({name: value for name, value in record.items() if name in _BESIDE_A_BAR}))

    def _show_sample(self) -> None:
        if self._verbose:
            super()._show_sample()
            return
        console = self._progress.console
        width = max(console.width - len(INDENT), 1)
        for text in Text(self._sample.strip()).wrap(console, width)[:EXCERPT]:
            self.line(f"{INDENT}{text.plain.rstrip()}", style="cyan")


class Label(ProgressColumn):
    """The current activity, before a bar."""

    def __init__(self) -> None:
        super().__init__(table_column=Column(no_wrap=True))

    def render(self, task: Task) -> Text:
        """Return it as one line without markup."""
        return Text(one_line(task.description, most=LONGEST_LABEL))


@contextmanager
def open_progress(stream: TextIO | PatientStream, *columns: ProgressColumn) -> Iterator[Progress | None]:
    """Provide a progress bar on `stream`, or None if that is not a terminal, or a dumb one.

    It shows `columns`: by default the activity, the bar, the percentage and the time remaining. Anything written to
    standard output or error meanwhile appears above the bar, escaped as always.
    """
    if not stream.isatty() or os.environ.get("TERM") == "dumb":
        yield None
        return
    columns = columns or (Label(), BarColumn(bar_width=None), TextColumn(PERCENTAGE), TimeRemainingColumn())
    console = TextConsole(cast(TextIO, stream), width=get_terminal_size().columns)
    with Progress(*columns, console=console, transient=True) as progress, escaped_streams():
        yield progress


def of_how_much(activity: str, total: int) -> str:
    """Return an activity with its total amount.

    >>> of_how_much("merging", 3831), of_how_much("reading", 2_000_000)
    ('merging 3,831 pairs', 'reading 2.0 MB')
    """
    unit = COUNTED.get(activity.split()[0])
    return f"{activity} {total:,} {unit}" if unit else f"{activity} {total / 1e6:.1f} MB"


@contextmanager
def open_amount() -> Iterator[Callable[[str, int, int], None]]:
    """Provide a callback (activity, amount done, total) that shows progress on a terminal."""
    with open_progress(sys.stderr) as bar:
        task = None if bar is None else bar.add_task("opening", total=None)

        def show(activity: str, done: int, total: int) -> None:
            if bar is not None and task is not None:
                bar.update(task, description=of_how_much(activity, total), completed=done, total=total)

        yield show


def print_above(progress: Progress, text: str, style: str = "") -> None:
    """Print a line above the bar, as it is."""
    progress.console.print(Text(text, style), soft_wrap=True)  # a Text, as a style given to `print` is the bar's too


@contextmanager
def open_display(stream: TextIO, *, quiet: bool = False, verbose: bool = False) -> Iterator[Lines]:
    """Provide the display that suits `stream`; a `quiet` one has no bar."""
    watched = PatientStream(as_is(stream))
    if quiet:
        yield Lines(watched, quiet=True)
        return
    with open_progress(watched) as progress:
        yield Lines(watched, verbose=verbose) if progress is None else Bar(watched, progress, verbose=verbose)


def summarize(run: Run, ended: Ended) -> list[tuple[str, str]]:
    """Return a run's result and what to do next, in a few lines, each with its style on a terminal."""
    report, page = read_report(run.folder), run.folder.report
    tokens_per_second = ended.step * run.config.tokens_per_step / max(run.progress.seconds, 1e-9)
    speed = "" if run.config.objective.by_reward else f", {tokens_per_second:,.0f} tokens/s"
    lines = [
        (
            f"{'interrupted' if ended.interrupted else 'done'}: {count(ended.step, 'step')} in "
            f"{run.progress.seconds:.1f} s of training{speed}",
            "bold",
        )
    ]
    if run.progress.best_loss is not None:
        measured = f"val_loss {decimal_number(run.progress.best_loss)}"
        if run.config.objective.by_reward:
            measured = f"val_reward {decimal_number(1 - run.progress.best_loss)}"
        best = f"best {measured} at step {run.progress.best_step:,}"
        lines.append((f"{best}: {report.best_checkpoint}" if report.best_checkpoint else best, ""))
    if ended.trouble:
        lines.append((f"no report: {ended.trouble}", ""))
    else:
        lines.append((f"report: {page}", f"link {real_path(page).as_uri()}"))
    commands = [f"{INDENT}{command}" for _, command in report.commands[:MAX_COMMANDS]]
    return [*lines, *((text, "") for text in (["next:", *commands] if commands else []))]
