"""One run of an ablation: training it in its folder, and its result.

Besides the files that every run has, its folder holds

  result.json  its result, once it is finished
  output.txt   the output of its subprocess, if it had one
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.errors import CheckpointError, DivergedError, FormatError
from tinygrad_chat.experiments.ablation import Choices
from tinygrad_chat.files import explained, folder_is_there, is_folder, is_there, list_folder, write_atomic
from tinygrad_chat.runs.checkpoint import find_checkpoints
from tinygrad_chat.runs.consent import note_data
from tinygrad_chat.runs.folder import RunFolder
from tinygrad_chat.schema import Amount, Count, read_json
from tinygrad_chat.training.events import Ended, Event
from tinygrad_chat.training.loop import train
from tinygrad_chat.training.run import Run, resume_run, start_run

RESULT = "result.json"
OUTPUT = "output.txt"


@dataclass(frozen=True)
class PlannedRun:
    """A run of an ablation: the values of its cell, its configuration and its folder."""

    choices: Choices
    config: TrainingConfig
    path: Path

    @property
    def name(self) -> str:
        """Its name: its cell and its seed."""
        return self.path.name


class Result(TypedDict):
    """The result of a run."""

    parameters: Count
    steps: Count
    data_sha256: str
    diverged: bool
    val_loss: float | None
    val_bpb: float | None
    best_val_loss: Amount | None
    seconds: Amount


def train_planned(
    config: TrainingConfig,
    path: Path,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    confirmed: bool = False,
) -> Iterator[tuple[Run, Event]]:
    """Train the run at `path`, from its newest checkpoint if it has one, and yield its events.

    The result is saved, unless the run was stopped. Divergence is a result, too. Raises whatever `start_run` and
    training raise.
    """
    run = _open_run(config, path, confirmed)
    diverged = False
    try:
        for event in train(run, should_stop=should_stop):
            yield run, event
            if isinstance(event, Ended) and event.interrupted:
                return
    except DivergedError:
        diverged = True
        yield run, Ended(run.progress.step, interrupted=False)
    write_atomic(path / RESULT, json.dumps(_result(run, diverged)).encode())


def _open_run(config: TrainingConfig, path: Path, confirmed: bool) -> Run:
    with explained(path, "read"):
        folder_is_there(path)
    if find_checkpoints(RunFolder(path).checkpoints):
        note_data(path, config.data.source)  # the current user named it for this ablation
        threads = config.compute.threads
        with contextlib.suppress(CheckpointError):  # damaged: train from scratch
            return resume_run(path, {} if threads is None else {"threads": threads})
    _clear(path)
    return start_run(config, path, confirmed=confirmed)


def _clear(path: Path) -> None:
    """Remove what is left of an earlier start of the run, except for its output."""
    with contextlib.suppress(OSError):
        for each in list_folder(path):
            if is_folder(each):
                shutil.rmtree(each, ignore_errors=True)
            elif each.name != OUTPUT:
                each.unlink()


def _result(run: Run, diverged: bool) -> Result:
    last = {} if diverged else run.folder.records()[-1]
    return {
        "parameters": run.model.parameters().size,
        "steps": run.progress.step,
        "data_sha256": run.dataset.sha256,
        "diverged": diverged,
        "val_loss": last.get("val_loss"),
        "val_bpb": last.get("val_bpb"),
        "best_val_loss": run.progress.best_loss,
        "seconds": round(run.progress.seconds, 3),
    }


def read_result(path: Path) -> Result | None:
    """Return the result of the run at `path`; None if it is not finished or its file is damaged.

    Raises StorageError if the file cannot be read.
    """
    file = path / RESULT
    with contextlib.suppress(FormatError), explained(file, "read"):
        result = read_json(file, Result) if is_there(file) else None
        return result if result is not None and is_whole(result) else None
    return None


def is_whole(result: Result) -> bool:
    """Return whether a result is complete: it has a loss, or the run diverged."""
    return result["diverged"] or None not in (result["val_loss"], result["val_bpb"])
