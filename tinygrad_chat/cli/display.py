"""What a training run looks like: a progress bar on a terminal, plain lines in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from tinygrad_chat.training.loop import Ended, Evaluated, Event, Logged, Stepped
from tinygrad_chat.training.run import Run

_FORMATS = {"step": "d", "lr": ".3g", "grad_norm": ".3f", "tokens_per_second": ".0f"}


def format_record(record: Mapping[str, Any]) -> str:
    """Return a line of the log for people and for scripts that split at spaces.

    >>> format_record({"step": 100, "loss": 2.34561, "lr": 0.002})
    'step=100 loss=2.3456 lr=0.002'
    """
    return " ".join(f"{name}={value:{_FORMATS.get(name, '.4f')}}" for name, value in record.items())


class Display(Protocol):
    """Shows a run's events."""

    def downloaded(self, done: int, total: int) -> None:
        """Show how much of a corpus has come, in bytes."""
        ...

    def begin(self, run: Run) -> None:
        """Show what is about to be trained."""
        ...

    def show(self, event: Event) -> None:
        """Show an event."""
        ...

    def notice(self, text: str) -> None:
        """Show a line at once, from a signal handler too."""
        ...

    def end(self, run: Run, ended: Ended | None) -> None:
        """Show what came of it."""
        ...


@contextmanager
def open_display(stream: TextIO) -> Iterator[Display]:
    """Provide the display that suits `stream`."""
    if not stream.isatty():
        yield Lines(stream)
        return
    console = Console(file=stream)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bar(progress)


class Lines:
    """Plain lines, each complete when it is printed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._sample = ""

    def _print(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def downloaded(self, done: int, total: int) -> None:
        """Say once that a corpus has come."""
        if done == total:
            self._print(f"fetched {total:,} bytes")

    def begin(self, run: Run) -> None:
        """Print the model, the data and the folder."""
        for line in describe(run):
            self._print(line)

    def show(self, event: Event) -> None:
        """Print a line of the log, and keep the newest sample for the end."""
        if isinstance(event, Logged):
            self._print(format_record(event.record))
        elif isinstance(event, Evaluated):
            self._sample = event.sample

    def notice(self, text: str) -> None:
        """Print the line on stderr."""
        print(f"tgc: {text}", file=sys.stderr, flush=True)

    def end(self, run: Run, ended: Ended | None) -> None:
        """Print the summary and the newest sample."""
        for line in summarize(run, ended):
            self._print(line)
        if self._sample:
            self._print(f"\n{self._sample}")


class Bar:
    """A progress bar with the newest numbers; evaluations stay above it as lines."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("reading", total=None)
        self._sample = ""

    def downloaded(self, done: int, total: int) -> None:
        """Move the bar along the download."""
        self._progress.update(self._task, description=f"fetching {total / 1e6:.1f} MB", completed=done, total=total)

    def begin(self, run: Run) -> None:
        """Print the model, the data and the folder, and start the bar."""
        for line in describe(run):
            self._progress.console.print(line, style="dim", highlight=False)
        self._progress.reset(self._task, total=run.config.steps, completed=run.step, description=f"step {run.step}")

    def show(self, event: Event) -> None:
        """Move the bar; print evaluations."""
        if isinstance(event, Stepped):
            self._progress.update(
                self._task, completed=event.step, description=f"step {event.step}  loss {event.loss:.3f}"
            )
        elif isinstance(event, Evaluated):
            self._sample = event.sample
        elif isinstance(event, Logged) and "val_loss" in event.record:
            self._progress.console.print(format_record(event.record), highlight=False, soft_wrap=True)

    def notice(self, text: str) -> None:
        """Print the line above the bar."""
        self._progress.console.print(text, style="yellow", highlight=False)

    def end(self, run: Run, ended: Ended | None) -> None:
        """Print the summary and the newest sample."""
        self._progress.stop()
        console = self._progress.console
        for line in summarize(run, ended):
            console.print(line, highlight=False, soft_wrap=True)
        if self._sample:
            console.print(f"\n{self._sample}", markup=False, highlight=False, style="cyan")


def describe(run: Run) -> list[str]:
    """Return what is about to be trained, in a few lines."""
    config, parameters, dataset = run.config, run.model.parameters(), run.dataset
    model = config.model
    if model != "bigram":
        model += f", {config.layers} layers, {config.heads} heads, width {config.width}, context {config.context}"
    return [
        f"model {model}: {parameters.size:,} parameters on {parameters.backend.name} ({parameters.backend.device})",
        f"data {dataset.source}: {len(dataset.training):,} tokens to train on, {len(dataset.validation):,} held out, "
        f"vocabulary {run.tokenizer.size}",
        f"run {run.folder.path}: steps {run.step} to {config.steps}, {config.optimizer}, seed {config.seed}",
    ]


def summarize(run: Run, ended: Ended | None) -> list[str]:
    """Return what came of a run, in a few lines."""
    lines = []
    if ended is not None:
        how = "interrupted" if ended.interrupted else "done"
        lines.append(f"{how}: {ended.step:,} steps, {ended.seconds:.1f} s of training")
    if run.best_loss is not None:
        lines.append(f"best val_loss {run.best_loss:.4f} at step {run.best_step}")
    folder = run.folder.path
    if ended is not None and ended.interrupted:
        lines.append(f"checkpoint saved; go on with: tgc train --resume --out {folder}")
    else:
        lines.append(f"sample from it with: tgc sample --checkpoint {folder}")
    return lines
