"""The interface of a tracker."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from tinygrad_chat.training.run import Run

PROJECT = "tinygrad_chat"
"""The project for all runs, if a tracker has projects."""


class Tracker(ABC):
    """A library that displays runs, opened for one of them."""

    library: ClassVar[str]
    """The package to import and to install."""
    identity: str
    """The name or number by which the library knows the run."""
    how_to_look: str
    """The command or address that shows the run."""
    last_step: int | None = None
    """The last step that it has from earlier starts of the run, if the library reports it."""

    @abstractmethod
    def __init__(self, run: Run, identity: str | None) -> None:
        """Open the tracker for `run` at its current step; `identity` is that of an earlier start of the run, if any."""

    @abstractmethod
    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send the numbers of a line of the log."""

    @abstractmethod
    def show_text(self, step: int, text: str) -> None:
        """Send the text generated after `step` updates; the numbers of that step may follow it."""

    @abstractmethod
    def close(self, *, failed: bool) -> None:
        """Send what is still pending."""


class RevisableTracker(Tracker):
    """A tracker that can take back points whose steps are repeated, after a resume or a rollback.

    Other trackers are sent each step once, and keep what was sent first.
    """

    @abstractmethod
    def take_back(self, step: int) -> None:
        """Forget what was sent for `step` and later."""
