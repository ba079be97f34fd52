"""What the training loop tells whoever watches it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinygrad_chat.training.evaluation import Evaluation


@dataclass(frozen=True)
class Began:
    """Between two steps, something begins that may take a while: `activity` says what."""

    step: int
    activity: str


@dataclass(frozen=True)
class Saved:
    """The checkpoint of a step is on disk, whole. Of temporary ones nobody is told."""

    step: int
    path: Path


@dataclass(frozen=True)
class Evaluated:
    """The model after `step` updates: how good it is, and a text by it.

    Of a run that learns from rewards, `reward` is the mean over held-out problems.
    """

    step: int
    evaluation: Evaluation
    sample: str
    reward: float | None = None


@dataclass(frozen=True)
class Stepped:
    """`step` updates are done, `fraction` of the run's steps or minutes."""

    step: int
    loss: float
    fraction: float


@dataclass(frozen=True)
class Logged:
    """A line of the log: the state after record["step"] updates, and the loss of the batch drawn next.

    `timing` stands beside it: the seconds that training had taken until then, and what else no seed decides.
    """

    record: dict[str, Any]
    timing: dict[str, Any]


@dataclass(frozen=True)
class RolledBack:
    """The loss was NaN or infinite at `failed_step`; training goes on from `step` with other batches."""

    step: int
    failed_step: int
    reason: str


@dataclass(frozen=True)
class Ended:
    """The run is over, or was stopped before its end; either way a checkpoint of this step is on disk.

    `trouble` says why the report could not be written, where it could not.
    """

    step: int
    interrupted: bool
    trouble: str = ""


Event = Began | Saved | Evaluated | Stepped | Logged | RolledBack | Ended
