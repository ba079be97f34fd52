"""The time that training takes, without evaluations and what else stands between steps, and since a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from tinygrad_chat.training.run import Run


class Clock:
    """Counts the seconds spent in training steps, in the run as a whole and since the last line of the log."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._steps = 0
        self._seconds = 0.0

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        passed = time.perf_counter() - self._began
        self._steps += 1
        self._seconds += passed
        self._run.progress.seconds += passed

    def fraction_used(self) -> float:
        """The fraction of the configured minutes that is over; 0 where there is no limit."""
        minutes = self._run.config.schedule.minutes
        return 0.0 if minutes is None else self._run.progress.seconds / (60 * minutes)

    def tokens_per_second(self) -> float:
        """Training tokens per second since the last call."""
        speed = self._steps * self._run.config.tokens_per_step / self._seconds
        self._steps, self._seconds = 0, 0.0
        return speed


MOST_AT_STAKE = 60.0  # seconds of training that a kill may cost
SAVING_SHARE = 0.03  # of the time, at most, for checkpoints that no step asks for


class CheckpointClock:
    """Says when a temporary checkpoint is due: a minute after the last one, or later where saving takes long."""

    def __init__(self) -> None:
        self._saved = time.monotonic()
        self._took = 0.0

    def due(self) -> bool:
        """Return whether so much time has passed that a kill would cost too much."""
        return time.monotonic() - self._saved >= max(MOST_AT_STAKE, self._took / SAVING_SHARE)

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Measure how long it takes to save a checkpoint, and begin to count anew."""
        began = time.monotonic()
        yield
        self._saved = time.monotonic()
        self._took = self._saved - began
