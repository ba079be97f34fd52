"""What an ablation looks like: on a terminal, one bar for all its runs, or one for each run in training; in a pipe, a
line for each finished run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from tinygrad_chat.cli.display import PERCENTAGE, Label, Lines, open_progress, print_above
from tinygrad_chat.cli.streams import PatientStream, as_is
from tinygrad_chat.experiments.jobs import Failed, Finished, News, Running
from tinygrad_chat.formatting import count, decimal_number, duration
from tinygrad_chat.training.events import Ended, Evaluated, Event, Stepped
from tinygrad_chat.training.run import Run


class AblationLines(Lines):
    """A line for each finished run."""

    def show_run(self, run: Run, event: Event) -> None:
        """Print a run that has ended."""
        if isinstance(event, Evaluated):
            self._evaluated = event
        elif isinstance(event, Ended) and not event.interrupted:
            loss = self._evaluated.evaluation.loss if self._evaluated.step == event.step else None
            self._show_result(run.folder.path.name, event.step, loss, run.progress.seconds)

    def show_news(self, news: News) -> None:
        """Print a run that has ended in its own process."""
        if isinstance(news, Finished):
            row = news.row
            self._show_result(news.run.name, row["steps"], row["val_loss"], row["seconds"])
        elif isinstance(news, Failed):
            self.line(f"{news.run.name} failed: {news.reason}", style="red")

    def _show_result(self, name: str, step: int, loss: float | None, seconds: float) -> None:
        result = f"diverged at step {step}" if loss is None else f"val_loss={decimal_number(loss)}"
        self.line(f"{name} {result} seconds={seconds:.1f}")


class AblationBar(AblationLines):
    """A bar over all runs, `done` of them at its start, with finished runs as lines above it."""

    def __init__(self, stream: PatientStream, progress: Progress, *, runs: int, done: int) -> None:
        super().__init__(stream)
        self._progress = progress
        self._done = done
        self._task = progress.add_task("", total=runs, completed=done)

    def _print(self, text: str, style: str) -> None:
        print_above(self._progress, text, style)

    def progressed(self, activity: str, done: int, total: int) -> None:
        """Show what is being read before any run begins."""
        self._progress.update(self._task, description=activity)

    def show_run(self, run: Run, event: Event) -> None:
        """Move the bar, or print a run that has ended."""
        super().show_run(run, event)
        if isinstance(event, Stepped):
            name = run.folder.path.name
            self._progress.update(self._task, completed=self._done + event.fraction, description=name)
        elif isinstance(event, Ended):
            self._done += 1


class AblationTable(AblationBar):
    """A bar over all runs, and below it one for each run in training: step, loss, time left."""

    def __init__(self, stream: PatientStream, progress: Progress, *, runs: int, done: int) -> None:
        super().__init__(stream, progress, runs=runs, done=done)
        self._runs = runs
        self._rows: dict[str, TaskID] = {}
        self._count()

    def show_news(self, news: News) -> None:
        """Move a run's bar, or print that it has ended."""
        super().show_news(news)
        name = news.run.name
        if not isinstance(news, Running):
            if name in self._rows:
                self._progress.remove_task(self._rows.pop(name))
            self._done += isinstance(news, Finished)
            self._count()
            return
        if name not in self._rows:
            self._rows[name] = self._progress.add_task(name, total=1.0)
            self._count()
        found = news.progress
        if found is not None:
            left = f"{duration(found.seconds_left)} left" if found.seconds_left else ""
            loss = "" if found.loss is None else f"loss {decimal_number(found.loss, 3)}"
            step = f"step {found.step:,}"
            self._progress.update(self._rows[name], completed=found.fraction, step=step, loss=loss, left=left)

    def _count(self) -> None:
        said = f"{self._done:,} of {count(self._runs, 'run')}"
        self._progress.update(self._task, completed=self._done, description=said)


class Field(ProgressColumn):
    """A named field of a run."""

    def __init__(self, name: str) -> None:
        super().__init__(table_column=Column(no_wrap=True))
        self._name = name

    def render(self, task: Task) -> Text:
        """Return its value, or nothing while it is unknown."""
        return Text(task.fields.get(self._name, ""))


@contextmanager
def open_ablation_display(stream: TextIO, *, runs: int, done: int, at_once: bool) -> Iterator[AblationLines]:
    """Provide the display that suits `stream`; `at_once`, for runs that are trained in parallel."""
    watched = PatientStream(as_is(stream))
    bar = BarColumn(bar_width=None)
    columns = (Label(), Field("step"), Field("loss"), bar, TextColumn(PERCENTAGE), Field("left")) if at_once else ()
    with open_progress(watched, *columns) as progress:
        if progress is None:
            yield AblationLines(watched)
        else:
            yield (AblationTable if at_once else AblationBar)(watched, progress, runs=runs, done=done)
