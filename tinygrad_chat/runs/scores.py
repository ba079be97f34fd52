"""A model's results on tasks, which a run keeps in evaluation.json."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

from tinygrad_chat.files import explained, is_there, write_atomic
from tinygrad_chat.runs.records import Seconds
from tinygrad_chat.schema import Bounds, Count, read_json

LARGEST_SCORES = 1 << 24  # bytes


@dataclass(frozen=True)
class Example:
    """A question of a task, the model's answer, the expected one, and whether the model's is right."""

    question: str
    answer: str
    expected: str
    solved: bool


@dataclass(frozen=True)
class TaskResult:
    """The result on `count` problems of a task, which took `seconds`; `chance` is the accuracy of guessing.

    Unsolved `examples` come first.
    """

    task: str
    solved: Count
    count: Annotated[int, Bounds(minimum=1)]
    chance: Annotated[float, Bounds(minimum=0, maximum=0.999)]
    seed: Count
    seconds: Seconds
    examples: tuple[Example, ...] = ()

    @property
    def accuracy(self) -> float:
        """The fraction of problems solved."""
        return self.solved / self.count

    @property
    def error(self) -> float:
        """The standard error of the accuracy, with one solved and one unsolved problem added.

        Without these, an accuracy of 0 or 1 would have no error at all.
        """
        part = (self.solved + 1) / (self.count + 2)
        return (part * (1 - part) / (self.count + 2)) ** 0.5

    @property
    def centred(self) -> float:
        """The accuracy rescaled so that guessing gives 0 and solving everything 1."""
        return (self.accuracy - self.chance) / (1 - self.chance)

    def to_json(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        derived = {"accuracy": self.accuracy, "error": self.error, "centred": self.centred}
        return {**dataclasses.asdict(self), **derived}


def mean_centred(results: Sequence[TaskResult]) -> float:
    """Return the mean of the centred accuracies of several tasks: the CORE metric (arXiv:2406.11794)."""
    return fmean(result.centred for result in results)


@dataclass(frozen=True)
class Scores:
    """The results of the checkpoint of a `step`: the latest of each task."""

    step: Count
    results: tuple[TaskResult, ...]


def read_scores(path: Path) -> list[Scores]:
    """Return the scores in an evaluation.json, sorted by step; none if there is no file.

    Raises StorageError if it cannot be read, FormatError if it holds something else.
    """
    with explained(path, "read"):
        found = read_json(path, list[Scores], source=path.name, most=LARGEST_SCORES) if is_there(path) else []
    return sorted(found, key=lambda scores: scores.step)


def add_results(path: Path, step: int, results: Sequence[TaskResult]) -> None:
    """Save a checkpoint's results in an evaluation.json, replacing its earlier results on the same tasks.

    Raises what `read_scores` raises, and StorageError if it cannot be written.
    """
    by_step = {scores.step: {result.task: result for result in scores.results} for scores in read_scores(path)}
    by_step.setdefault(step, {}).update({result.task: result for result in results})
    content = [
        {"step": step, "results": [dataclasses.asdict(result) for result in kept.values()]}
        for step, kept in sorted(by_step.items())
    ]
    write_atomic(path, json.dumps(content, indent=1).encode())
