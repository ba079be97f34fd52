"""A run's folder, summarised in one record: how far the run got, how good it is, how fast it was.

Nothing here writes, so a run in progress can be summarised too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinygrad_chat.config.groups import UNBOUNDED
from tinygrad_chat.errors import FormatError, TinygradChatError, UsageError
from tinygrad_chat.files import explained, is_folder, is_locked, is_run, is_there, list_folder, user_path
from tinygrad_chat.runs.arrays import read_header
from tinygrad_chat.runs.checkpoint import WEIGHTS, find_checkpoints
from tinygrad_chat.runs.finding import RUNS, explain_missing, last_written
from tinygrad_chat.runs.folder import RunFolder
from tinygrad_chat.runs.records import TimingLine

LARGEST_DRAWN = 1e30  # larger than any meaningful value; squared sums of smaller ones are finite


@dataclass(frozen=True)
class RunSummary:
    """A run after `step` updates on `tokens` tokens, which took `seconds` of training. None means not known."""

    path: Path
    outcome: str
    """From outcome.json; without it, `running` or `killed`; `damaged` if something cannot be read."""
    reason: str = ""
    """Why it failed, or what is damaged."""
    left_out: str = ""
    """What is wrong with the first invalid line of its log or timing; invalid lines are left out."""
    model: str | None = None
    parent: str | None = None
    """The checkpoint that its weights come from, if they were not initialised randomly."""
    step: int | None = None
    steps: int | None = None
    """How many it is to do; None if only its minutes limit it."""
    minutes: float | None = None
    best_val_loss: float | None = None
    best_step: int | None = None
    val_reward: float | None = None
    """At `best_step`, if the run learns from rewards: the best reward. The loss there need not be the lowest."""
    val_bpb: float | None = None
    """Bits per byte at `best_step`."""
    tokens: int | None = None
    seconds: float | None = None
    tokens_per_second: float | None = None
    parameters: int | None = None


def find_run(name: str, *, command: str) -> Path:
    """Return the folder of a run from its path or its name below runs/. Raises UsageError, naming `command`."""
    for path in (user_path(name), RUNS / name):
        if may_be_run(path):
            return path
    missing = explain_missing(user_path(name))
    default = "no run there; expected a run's folder or its name below runs/; see tgc runs"
    raise UsageError(f"{command}: {name}: {missing or default}")


def find_runs(folder: Path) -> tuple[list[RunSummary], list[Path]]:
    """Return a summary of each run in `folder`, the last written at the end, and the folders without a run."""
    with explained(folder, "read"):
        shown = [path for path in list_folder(folder, follow=True) if not path.name.startswith(".")]
    runs, others = [], []
    for path in shown:
        if may_be_run(path):
            runs.append(path)
        elif is_folder(path, follow=True):
            others.append(path)
    return [summarize_run(path) for path in sorted(runs, key=last_written)], others


def may_be_run(path: Path) -> bool:
    """Return whether `path` holds a run, or something that cannot be read: its summary says why."""
    try:
        return is_run(path)
    except OSError:
        return True


def summarize_run(path: Path) -> RunSummary:
    """Summarise the run at `path`. What cannot be read makes its outcome `damaged`; no error is raised."""
    folder = RunFolder(path)
    try:
        with explained(path, "read"):
            is_over = is_there(folder.outcome)  # it is written while the folder is still locked
            locked = not is_over and is_locked(path)
        if not is_there(folder.config):
            return RunSummary(path, "running") if locked else RunSummary(path, "damaged", "has no config.toml")
        config = folder.read_config()
        log, timing = folder.read_log(), folder.read_timing()
        checkpoints = find_checkpoints(folder.checkpoints)
        ended = folder.read_outcome() if is_over else None
    except (TinygradChatError, OSError) as error:
        return RunSummary(path, "damaged", str(error))
    if not log.lines and not locked and is_there(folder.log) and folder.log.stat().st_size:
        return RunSummary(path, "damaged", log.unfit or "log.jsonl has no complete line")
    step = max([ended["step"] if ended else 0, *(record["step"] for record in log.records)])
    best = min(evaluations(log.records), key=shortfall, default={})
    batch = config.tokens_per_step
    timed = timing.records[-1] if timing.lines else TimingLine(step=0)
    trained = timed.get("seconds", 0)
    return RunSummary(
        path,
        "running" if locked else ended["outcome"] if ended else "killed",
        ended["reason"] if ended else "",
        log.unfit or timing.unfit,
        model=config.recipe.model,
        parent=config.recipe.start_from,
        step=step,
        steps=None if config.schedule.steps == UNBOUNDED else config.schedule.steps,
        minutes=config.schedule.minutes,
        best_val_loss=best.get("val_loss"),
        val_reward=best.get("val_reward"),
        best_step=best.get("step"),
        val_bpb=best.get("val_bpb"),
        tokens=None if config.objective.by_reward else step * batch,
        seconds=ended["seconds"] if ended else timed.get("seconds"),
        tokens_per_second=timed["step"] * batch / trained
        if timed["step"] and trained and not config.objective.by_reward
        else None,
        parameters=_count_parameters(checkpoints[-1]) if checkpoints else None,
    )


def evaluations(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the lines of a log that hold an evaluation."""
    return [record for record in records if is_number(record.get("val_loss")) and is_number(record.get("val_bpb"))]


def shortfall(record: Mapping[str, Any]) -> float:
    """Return what evaluations are ranked by, lowest first: 1 minus the reward or, without rewards, the loss."""
    return 1 - record["val_reward"] if is_number(record.get("val_reward")) else record["val_loss"]


def is_number(value: Any) -> bool:
    """Return whether a log's value is present and is a number that can be drawn."""
    return isinstance(value, int | float) and abs(value) < LARGEST_DRAWN


def _count_parameters(checkpoint: Path) -> int | None:
    """Count a checkpoint's parameters by the header of its weights; None if that cannot be read."""
    try:
        return read_header(checkpoint / WEIGHTS).size
    except (OSError, FormatError):
        return None
