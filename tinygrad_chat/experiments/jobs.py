"""Several runs of an ablation at once, each in its own subprocess, so that a crash affects no other run."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

from tinygrad_chat.experiments.ablation import Ablation
from tinygrad_chat.experiments.job import Job, last_words
from tinygrad_chat.experiments.planned import PlannedRun
from tinygrad_chat.experiments.progress import Progress, read_progress
from tinygrad_chat.experiments.results import Row, add_result, held
from tinygrad_chat.experiments.shares import describe_shares, devices_of, expect_room_for, read_texts, with_threads
from tinygrad_chat.files import explained, is_locked
from tinygrad_chat.text.download import Progress as Reading

POLL = 0.1  # seconds between checks on the processes


@dataclass(frozen=True)
class Running:
    """A run is training; `progress` is None if it has logged nothing yet."""

    run: PlannedRun
    progress: Progress | None


@dataclass(frozen=True)
class Finished:
    """A run has a result, which is in results.jsonl."""

    run: PlannedRun
    row: Row


@dataclass(frozen=True)
class Failed:
    """A run has ended without a result; the next start continues it."""

    run: PlannedRun
    reason: str


@dataclass(frozen=True)
class Stopped:
    """A run was told to stop, or was not started; the next start continues it."""

    run: PlannedRun


News = Running | Finished | Failed | Stopped


def run_jobs(
    ablation: Ablation,
    folder: Path,
    jobs: int,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    confirmed: bool = False,
    say: Callable[[str], None] = lambda line: None,
    progress: Reading | None = None,
) -> Generator[News, None, None]:
    """Train all unfinished runs, `jobs` at a time, and yield news of them.

    `say` reports each run's share of the machine, `progress` the reading of a text. Raises UsageError if `folder` holds
    another ablation, and NoRoomError if there is no room for so many runs.
    """
    with held(ablation, folder) as unfinished:
        waiting = [with_threads(run, jobs) for run in unfinished]
        devices = devices_of(waiting)
        expect_room_for(waiting, read_texts(waiting, progress=progress), jobs, devices)
        at_once = min(jobs, len(waiting))
        if waiting:
            say(describe_shares(waiting, at_once, devices))
        working: dict[int, tuple[PlannedRun, Job]] = {}
        stopping = told = False
        try:
            while waiting or working:
                if should_stop() and not stopping:
                    stopping = True
                    yield from map(Stopped, waiting)
                    waiting.clear()
                    for _, job in working.values():
                        job.stop()
                for place in range(at_once):
                    run = None if place in working else next((each for each in waiting if not _is_held(each)), None)
                    if run is not None:
                        waiting.remove(run)
                        device = devices[place % len(devices)] if devices else None
                        working[place] = run, Job(run.config, run.path, device=device, confirmed=confirmed)
                if waiting and not working and not told:
                    told = True
                    say(f"{waiting[0].path}: another process is using it; waiting for it")
                for place, (run, job) in list(working.items()):
                    if not job.ended():
                        yield Running(run, read_progress(run.config, run.path))
                        continue
                    del working[place]
                    row = add_result(folder, run)
                    if row is not None:
                        yield Finished(run, row)
                    else:
                        yield Stopped(run) if stopping else Failed(run, last_words(run.path))
                time.sleep(POLL)
        finally:
            for _, job in working.values():
                job.kill()


def _is_held(run: PlannedRun) -> bool:
    """Return whether a process is working in the run's folder, such as one whose parent was just killed."""
    with explained(run.path, "read"):
        return is_locked(run.path)
