"""What a run costs, found out by running its beginning in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tinygrad_chat import errors
from tinygrad_chat.backend import available_memory
from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.errors import NoRoomError, TinygradChatError

PYTHON = (sys.executable, "-P")  # what lies in the current folder must not be imported
COMMAND = (*PYTHON, "-m", "tinygrad_chat.planning.first_steps")
PLACE = str(Path(__file__).parents[2])  # so that the process runs this very package
ENOUGH_SECONDS = 2.0  # of steps
MOST_SHARE = 0.9  # of what is available: no measurement takes the rest
WATCHED_EVERY = 0.02  # seconds between looks at the memory of the process


@dataclass(frozen=True)
class Measurement:
    """A run's sizes, and what each part of it took, in seconds and bytes.

    `between_steps` is what the loop does for each step beside training: the log, a look at the checkpoints.
    `document_tokens` is the mean length of a document, after which a sample may end. `peak_memory` is that of the
    process, `device_memory` that of a GPU; `built_memory` and `step_memory` are what was held where the arrays live
    before the first step, and at its peak.
    """

    parameters: int
    vocabulary: int
    validation_tokens: int
    document_tokens: float
    startup_seconds: float
    steps: int
    first_step_seconds: float
    step_seconds: float
    between_steps_seconds: float
    evaluation_seconds_a_token: float
    sample_seconds_a_token: float
    checkpoint_seconds: float
    built_memory: int
    step_memory: int
    peak_memory: int
    device_memory: int | None
    environment: dict[str, Any]

    @property
    def fullest_memory(self) -> int:
        """The most bytes held where the arrays live."""
        return self.peak_memory if self.device_memory is None else self.device_memory


def measure(
    config: TrainingConfig,
    *,
    seconds: float = ENOUGH_SECONDS,
    command: Sequence[str] = COMMAND,
    confirmed: bool = False,
    room: float | None = None,
) -> Measurement:
    """Run the beginning of `config` for about `seconds` of steps, in a process of its own.

    `command`, with the request as its last word, starts it: the more like the run itself, the closer are time and
    memory. Raises NoRoomError as soon as it holds more than `room` bytes or than nine tenths of what
    is available, and whatever start_run and train raise.
    """
    most = MOST_SHARE * available_memory()
    limit = most if room is None else min(room, most)
    request = {"settings": config.used_settings(), "seconds": seconds, "confirmed": confirmed}
    startup, answer, last_words = 0.0, None, ""
    began = answered = time.perf_counter()
    with subprocess.Popen(
        [*command, json.dumps(request)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": os.pathsep.join([PLACE, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)},
    ) as process:
        watch = _Watch(process, limit)
        try:
            assert process.stdout
            for line in process.stdout:
                if not line.startswith("{"):
                    last_words = line.strip() or last_words
                elif (news := json.loads(line)).keys() == {"first_step_seconds"}:
                    startup = time.perf_counter() - began - news["first_step_seconds"]
                else:
                    answer, answered = news, time.perf_counter()
            process.wait()
        finally:
            process.kill()  # does nothing where it has ended
            watch.end()
    if watch.exceeded or (answer is not None and answer.get("error") in ("MemoryError", "MemoryShortageError")):
        raise NoRoomError(
            f"--batch-size {config.data.batch_size} --grad-accumulation {config.data.grad_accumulation}: the run takes "
            f"more than the {limit / 2**30:.3g} GiB of memory that it may; let --fit choose, or choose a smaller "
            "--batch-size, --width, --layers or --context"
        )
    if answer is None:
        raise TinygradChatError(f"the measuring process ended with {process.returncode}: {last_words}")
    if "error" in answer:
        raise getattr(errors, answer["error"])(answer["message"])
    return Measurement(startup_seconds=startup + time.perf_counter() - answered, **answer)


class _Watch(threading.Thread):
    """Kills a process that holds more memory than it may, before the machine has none left."""

    def __init__(self, process: subprocess.Popen[str], limit: float) -> None:
        super().__init__(daemon=True)
        self._process, self._limit = process, limit
        self._over = threading.Event()
        self.exceeded = False
        self.start()

    def run(self) -> None:
        """Look at the process until it has ended."""
        try:
            watched = psutil.Process(self._process.pid)
            while not self._over.wait(WATCHED_EVERY):
                if watched.memory_info().rss > self._limit:
                    self.exceeded = True
                    self._process.kill()
                    return
        except psutil.Error:  # it has ended
            return

    def end(self) -> None:
        """Stop looking."""
        self._over.set()
        self.join()
