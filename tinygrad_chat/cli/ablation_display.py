"""What an ablation looks like: one bar for all its runs on a terminal, a line for each finished run in a pipe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.progress import Progress

from tinygrad_chat.cli.display import Lines, open_progress, print_above
from tinygrad_chat.cli.streams import PatientStream, as_is
from tinygrad_chat.formatting import decimal_number
from tinygrad_chat.training.events import Ended, Evaluated, Event, Stepped
from tinygrad_chat.training.run import Run


class AblationLines(Lines):
    """A line for each finished run."""

    def show_run(self, run: Run, event: Event) -> None:
        """Print a run that has ended."""
        if isinstance(event, Evaluated):
            self._evaluated = event
        elif isinstance(event, Ended) and not event.interrupted:
            whole = self._evaluated.step == event.step
            loss = decimal_number(self._evaluated.evaluation.loss)
            result = f"val_loss={loss}" if whole else f"diverged at step {event.step}"
            self.line(f"{run.folder.path.name} {result} seconds={run.progress.seconds:.1f}")


class AblationBar(AblationLines):
    """A bar over all runs, `done` of them at its start, with finished runs as lines above it."""

    def __init__(self, stream: PatientStream, progress: Progress, *, runs: int, done: int) -> None:
        super().__init__(stream)
        self._progress = progress
        self._done = done
        self._task = progress.add_task("", total=runs, completed=done)

    def _print(self, text: str, style: str) -> None:
        print_above(self._progress, text, style)

    def show_run(self, run: Run, event: Event) -> None:
        """Move the bar, or print a run that has ended."""
        super().show_run(run, event)
        if isinstance(event, Stepped):
            name = run.folder.path.name
            self._progress.update(self._task, completed=self._done + event.fraction, description=name)
        elif isinstance(event, Ended):
            self._done += 1


@contextmanager
def open_ablation_display(stream: TextIO, *, runs: int, done: int) -> Iterator[AblationLines]:
    """Provide the display that suits `stream`."""
    watched = PatientStream(as_is(stream))
    with open_progress(watched) as progress:
        yield AblationLines(watched) if progress is None else AblationBar(watched, progress, runs=runs, done=done)
