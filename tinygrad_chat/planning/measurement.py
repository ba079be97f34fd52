"""Measure the cost of a run by running its beginning in a subprocess."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tinygrad_chat import errors
from tinygrad_chat.backend import available_memory
from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.errors import FormatError, NoRoomError, TinygradChatError
from tinygrad_chat.parallel.starting import ranks_command
from tinygrad_chat.schema import OPTIONAL, Amount, Count, parse_json

PYTHON = (sys.executable, "-P")  # so that nothing is imported from the current folder
COMMAND = (*PYTHON, "-m", "tinygrad_chat.planning.first_steps")
PLACE = str(Path(__file__).parents[2])  # so that the subprocess runs this very package
ENOUGH_SECONDS = 2.0  # of steps
MAX_SHARE = 0.9  # of the available memory: the limit of a measurement
WATCHED_EVERY = 0.02  # seconds between checks of the memory of the subprocess
RANKS_WATCHED_EVERY = 0.2  # the same for ranks: to find them among all processes takes some milliseconds


@dataclass(frozen=True)
class Measurement:
    """A run's sizes, and the time and memory of each of its parts, in seconds and bytes.

    With several `ranks`, memory is that of rank 0. `between_steps_seconds` is the loop's work per step besides
    training, such as logging. `document_tokens` is the mean length of a document, after which a sample may end.
    `peak_memory` is that of the process, `device_memory` that of a GPU; `built_memory` and `step_memory` are the peaks
    where the arrays live, before the first step and after it.
    """

    ranks: Count
    parameters: Count
    vocabulary: Count
    validation_tokens: Count
    document_tokens: Amount
    steps: Count
    first_step_seconds: Amount
    step_seconds: Amount
    between_steps_seconds: float
    evaluation_seconds_a_token: Amount
    sample_seconds_a_token: Amount
    checkpoint_seconds: Amount
    built_memory: Count
    step_memory: Count
    peak_memory: Count
    device_memory: Count | None
    environment: dict[str, Any]
    startup_seconds: float = field(default=0.0, metadata=OPTIONAL)
    """Measured by the parent process, as the subprocess cannot."""

    @property
    def fullest_memory(self) -> int:
        """The peak memory in bytes where the arrays live."""
        return self.peak_memory if self.device_memory is None else self.device_memory


def measure(
    config: TrainingConfig,
    *,
    seconds: float = ENOUGH_SECONDS,
    command: Sequence[str] = COMMAND,
    confirmed: bool = False,
    room: float | None = None,
    ranks: int = 1,
) -> Measurement:
    """Run the beginning of `config` for about `seconds` of steps, in a subprocess or in `ranks` of them.

    `command`, with the request as its last argument, starts it: the more it resembles the run's own command, the closer
    are time and memory. Raises NoRoomError as soon as it holds more than `room` bytes or nine tenths of what is
    available, and whatever start_run and train raise.
    """
    most = MAX_SHARE * available_memory()
    limit = most if room is None else min(room, most)
    request = {"settings": config.used_settings(), "seconds": seconds, "confirmed": confirmed}
    startup, last_words = 0.0, ""
    answer: Measurement | Failure | None = None
    began = answered = time.perf_counter()
    with subprocess.Popen(
        [*(ranks_command(ranks) if ranks > 1 else []), *command, json.dumps(request)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": os.pathsep.join([PLACE, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)},
    ) as process:
        watch = _Watch(process, limit, descendants=ranks > 1)
        try:
            assert process.stdout
            for line in process.stdout:
                news = _news(line)
                if isinstance(news, FirstStep):
                    startup = time.perf_counter() - began - news.first_step_seconds
                elif news is not None:
                    answer, answered = news, time.perf_counter()
                else:
                    last_words = line.strip() or last_words
            process.wait()
        finally:
            process.kill()  # does nothing if it has ended
            watch.end()
    failed = isinstance(answer, Failure)
    if watch.exceeded or (failed and answer.error in ("MemoryError", "MemoryShortageError")):
        raise NoRoomError(
            f"--batch-size {config.data.batch_size} --grad-accumulation {config.compute.grad_accumulation}: the run "
            f"takes more than the {limit / 2**30:.3g} GiB of memory that it may use; let --fit choose, or choose a "
            "smaller --batch-size, --width, --layers or --context"
        )
    if answer is None:
        raise TinygradChatError(f"the measuring process ended with exit code {process.returncode}: {last_words}")
    if isinstance(answer, Failure):
        kinds = {kind.__name__: kind for kind in vars(errors).values() if isinstance(kind, type)}
        raise kinds.get(answer.error, TinygradChatError)(answer.message)
    return dataclasses.replace(answer, startup_seconds=startup + time.perf_counter() - answered)


@dataclass(frozen=True)
class FirstStep:
    """The subprocess's message after its first step."""

    first_step_seconds: Amount


@dataclass(frozen=True)
class Failure:
    """Why the measurement failed: the name of an error, and its message."""

    error: str
    message: str = field(default="", metadata=OPTIONAL)


def _news(line: str) -> Measurement | Failure | FirstStep | None:
    """Parse a line of the subprocess's output; None if it is no message, such as a library's warning."""
    for kind in (Measurement, Failure, FirstStep):
        with contextlib.suppress(FormatError):
            return parse_json(line, kind, source="the measuring process")
    return None


class _Watch(threading.Thread):
    """Kills a process that exceeds its memory limit, before the machine runs out.

    With `descendants`, it kills all that the process has started, too, and their memory counts.
    """

    def __init__(self, process: subprocess.Popen[str], limit: float, *, descendants: bool) -> None:
        super().__init__(daemon=True)
        self._process, self._limit, self._descendants = process, limit, descendants
        self._over = threading.Event()
        self.exceeded = False
        self.start()

    def run(self) -> None:
        """Check the process until it has ended."""
        try:
            watched = psutil.Process(self._process.pid)
            while not self._over.wait(RANKS_WATCHED_EVERY if self._descendants else WATCHED_EVERY):
                every = [watched, *(watched.children(recursive=True) if self._descendants else ())]
                if sum(map(_resident, every)) > self._limit:
                    self.exceeded = True
                    for process in reversed(every):
                        with contextlib.suppress(psutil.NoSuchProcess):
                            process.kill()
                    return
        except psutil.Error:  # it has ended
            return

    def end(self) -> None:
        """Stop checking."""
        self._over.set()
        self.join()


def _resident(process: psutil.Process) -> int:
    """Return the bytes of memory that a process holds, 0 if it has ended."""
    try:
        return process.memory_info().rss
    except psutil.NoSuchProcess:
        return 0
