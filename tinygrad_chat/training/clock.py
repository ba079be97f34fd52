"""The time that training takes, without evaluations and what else stands between steps."""

from __future__ import annotations

import time

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
