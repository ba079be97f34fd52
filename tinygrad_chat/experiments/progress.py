"""The progress of a run, read from its folder, whichever process or machine trains it."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.errors import FormatError
from tinygrad_chat.files import open_plain
from tinygrad_chat.runs.folder import RunFolder
from tinygrad_chat.runs.records import LONGEST_LINE, L, LogLine, TimingLine
from tinygrad_chat.schema import parse_json


@dataclass(frozen=True)
class Progress:
    """The latest in a run's log: the `fraction` of its steps or minutes that is done, and its last `loss`."""

    step: int
    fraction: float
    loss: float | None
    seconds: float

    @property
    def seconds_left(self) -> float | None:
        """The training time left at the pace so far; None if not yet known."""
        return self.seconds * (1 - self.fraction) / self.fraction if self.fraction > 0 else None


def read_progress(config: TrainingConfig, path: Path) -> Progress | None:
    """Return the progress of the run at `path`, None if it has logged nothing that can be read."""
    folder = RunFolder(path)
    record, timing = _newest(folder.log, LogLine), _newest(folder.timing, TimingLine)
    if record is None or timing is None:
        return None
    step, seconds, minutes = record["step"], timing.get("seconds", 0.0), config.schedule.minutes
    used = seconds / (60 * minutes) if minutes else 0.0
    return Progress(step, min(1.0, max(step / config.schedule.steps, used)), record.get("loss"), seconds)


def _newest(log: Path, kind: type[L]) -> L | None:
    """Return the last complete line of a log; only the end of a long log is read."""
    with contextlib.suppress(OSError), open_plain(log) as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 2 * LONGEST_LINE))
        for line in reversed(file.read().split(b"\n")):
            with contextlib.suppress(FormatError):
                return parse_json(line, kind, source=log.name)
    return None
