"""The events that the training loop yields."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinygrad_chat.training.evaluation import Evaluation


@dataclass(frozen=True)
class Began:
    """Between two steps, an `activity` begins that may take a while."""

    step: int
    activity: str


@dataclass(frozen=True)
class Saved:
    """The checkpoint of a step is complete on disk. Temporary checkpoints yield no event."""

    step: int
    path: Path


@dataclass(frozen=True)
class Evaluated:
    """The model after `step` updates: its evaluation, and a text it generated.

    For a run that learns from rewards, `reward` is the mean over held-out problems.
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
    """A line of the log: the state after record["step"] updates, and the loss of the next batch.

    `timing` has the seconds of training until then, and whatever else the seed does not determine.
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
class StayedEager:
    """The update after `step` others could not be captured as CUDA graphs: it and all later ones are eager."""

    step: int
    reason: str


@dataclass(frozen=True)
class ProductsDiffer:
    """From the update after `step` others on, matrix products are computed by other algorithms than before."""

    step: int
    reason: str


@dataclass(frozen=True)
class Ended:
    """The run is over, or was stopped before its end; either way a checkpoint of this step is on disk.

    `trouble` says why the report could not be written, if so.
    """

    step: int
    interrupted: bool
    trouble: str = ""


Event = Began | Saved | Evaluated | Stepped | Logged | RolledBack | StayedEager | ProductsDiffer | Ended
