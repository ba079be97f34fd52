"""The stages of a measurement on a GPU: each a process of its own with a time limit, none of which can spoil another.

Whatever a stage finds is a line of JSON in a file of its own, on disk before anything else happens. So a measurement
that is cut short keeps all that was found, and `--resume` goes on with the stages that have not come to their end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.turns import progress

DONE, LEFT_OUT, LATE, NO_MEMORY = "done", "left out", "ran past its limit", "out of memory"


@dataclass(frozen=True)
class Settings:
    """What stages are told: the `folder` for files, whether it is a `trial` without a GPU, how many `rounds` of turns,
    nanochat's checkout, and the text to train on."""

    folder: str
    trial: bool = False
    rounds: int = 5
    nanochat: str | None = None
    text: str | None = None


@dataclass(frozen=True)
class Stage:
    """A stage, how many seconds it may take, and what it shows. Its `command` is given a file and the settings."""

    name: str
    limit: float
    shows: str
    command: tuple[str, ...] = (sys.executable, "-m", "bench.gpu.stage")


STAGES = (
    Stage("machine", 60, "what the device really does in a large product and a copy"),
    Stage("kernels", 180, "every kernel is compiled; gradients and losses are those of the host; products by plan"),
    Stage("gpt2", 360, "training GPT-2 124M beside PyTorch, eager and compiled"),
    Stage("small", 150, "training S1 and mini-gpt beside PyTorch"),
    Stage("decode", 120, "generation beside PyTorch, each with a cache"),
    Stage("profile", 60, "where a step's time goes, and a trace of it"),
    Stage("loops", 120, "hot loops beside what they were before, and beside the reference ops"),
    Stage("tests", 420, "the project's tests that need a GPU: pytest -m gpu"),
    Stage("nanochat", 300, "training nanochat's d12 beside nanochat itself"),
    Stage("shakespeare", 180, "S1 trained until its validation loss is nanoGPT's 1.47"),
    Stage("sanitizer", 420, "every kernel under compute-sanitizer: memory, races, first writes, barriers"),
)
"""The most telling first."""


class Record:
    """The results of a stage: a file with a line of JSON each."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def say(self, what: str, **found: Any) -> None:
        """Add a result; it is on disk when this returns."""
        with self.path.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                file.write(b"" if file.read(1) == b"\n" else b"\n")  # a line that was cut off stays alone
            file.write(json.dumps({"what": what, **found}).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def lines(self) -> list[dict[str, Any]]:
        """Return what was said so far; a line that was cut off, as its process was ended, does not count."""
        found = []
        for line in self.path.read_text().splitlines() if self.path.exists() else ():
            with contextlib.suppress(json.JSONDecodeError):
                found.append(json.loads(line))
        return found

    def last(self, what: str) -> dict[str, Any]:
        """Return the last result of that name, or an empty one."""
        return next((line for line in reversed(self.lines()) if line["what"] == what), {})


def record_of(stage: str, folder: Path) -> Record:
    """Return a stage's results, in a folder of such files."""
    return Record(folder / f"{stage}.jsonl")


def run_stages(
    stages: Sequence[Stage],
    settings: Settings,
    *,
    minutes: float = float("inf"),
    resume: bool = False,
    after_each: Callable[[], None] = lambda: None,
) -> None:
    """Run stages one after another; what each came to is the last line of its record, `ended`.

    No stage begins that might not end within the `minutes`. With `resume`, those that are done stay as they are.
    """
    began, folder = time.monotonic(), Path(settings.folder)
    ahead = [stage for stage in stages if not (resume and _outcome(stage, folder) == DONE)]
    for stage in ahead:
        record_of(stage.name, folder).path.unlink(missing_ok=True)
    for stage in ahead:
        record, left = record_of(stage.name, folder), 60 * minutes - (time.monotonic() - began)
        if stage.limit > left:
            reason = f"may take {stage.limit:g} s, and {max(0, left):.0f} s are left of {minutes:g} minutes"
            record.say("ended", outcome=LEFT_OUT, reason=reason, seconds=0.0)
        else:
            progress(f"gpu {stage.name}: {stage.shows} (at most {stage.limit:g} s)")
            start = time.monotonic()
            outcome, reason = _run(stage, record, settings)
            record.say("ended", outcome=outcome, reason=reason, seconds=round(time.monotonic() - start, 1))
        ended = record.last("ended")
        progress(f"gpu {stage.name}: {ended['outcome']}" + f" ({ended['reason']})" * bool(ended["reason"]))
        after_each()


def _outcome(stage: Stage, folder: Path) -> str | None:
    return record_of(stage.name, folder).last("ended").get("outcome")


def _run(stage: Stage, record: Record, settings: Settings) -> tuple[str, str]:
    """Run a stage in a process, and end it with all that it has started. Return its outcome and the reason for it."""
    request = json.dumps(dataclasses.asdict(settings))
    with (Path(settings.folder) / "log.txt").open("a") as log:
        process = subprocess.Popen(
            [*stage.command, stage.name, str(record.path), request],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            code = process.wait(stage.limit)
        except subprocess.TimeoutExpired:
            return LATE, f"{stage.limit:g} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return _meaning_of(code, record.last("stopped"))


def _meaning_of(code: int, stopped: Mapping[str, Any]) -> tuple[str, str]:
    """Return what the end of a process means, given what it said itself when it stopped."""
    if stopped:
        return stopped["outcome"], stopped["reason"]
    if code == 0:
        return DONE, ""
    if code < 0:
        return "failed", f"ended by {signal.Signals(-code).name}; see log.txt"
    return "failed", f"ended with status {code}; see log.txt"
