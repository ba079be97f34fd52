"""What a run's folder says of the run, in one record: how far it came, how good it is, how fast it was.

Nothing here writes, so it may be asked of a run that goes on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from tinygrad_chat.config.groups import UNBOUNDED
from tinygrad_chat.errors import TinygradChatError, UsageError
from tinygrad_chat.files import expect_plain, explained, is_folder, is_locked, is_run, is_there, list_folder, user_path
from tinygrad_chat.runs.checkpoint import WEIGHTS, find_checkpoints
from tinygrad_chat.runs.finding import RUNS, explain_missing, last_written
from tinygrad_chat.runs.folder import RunFolder

LARGEST_DRAWN = 1e300  # sums of a few larger numbers overflow


@dataclass(frozen=True)
class RunSummary:
    """A run after `step` updates on `tokens` tokens, which took `seconds` of training. None is what is not known."""

    path: Path
    outcome: str
    """One of OUTCOMES; without outcome.json `running` or `killed`, and `damaged` where something cannot be read."""
    reason: str = ""
    """Why it failed, or what is damaged."""
    model: str | None = None
    parent: str | None = None
    """The checkpoint that its weights are from, where they were not drawn."""
    step: int | None = None
    steps: int | None = None
    """How many it is to do; None where only its minutes end it."""
    minutes: float | None = None
    best_val_loss: float | None = None
    best_step: int | None = None
    val_bpb: float | None = None
    """Bits per byte at `best_step`."""
    tokens: int | None = None
    seconds: float | None = None
    tokens_per_second: float | None = None
    parameters: int | None = None


def find_run(name: str, *, command: str) -> Path:
    """Return the folder of the run that `name` means: itself, or below runs/. Raises UsageError, for `command`."""
    for path in (user_path(name), RUNS / name):
        if may_be_run(path):
            return path
    missing = explain_missing(user_path(name))
    default = "no run there; expected a run's folder or its name below runs/; see tgc runs"
    raise UsageError(f"{command}: {name}: {missing or default}")


def find_runs(folder: Path) -> tuple[list[RunSummary], list[Path]]:
    """Return a summary of each run in `folder`, the one that wrote last at the end, and the folders that hold none."""
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
    """Return whether a run stands at `path`, or something that cannot be read: its summary says why not."""
    try:
        return is_run(path)
    except OSError:
        return True


def summarize_run(path: Path) -> RunSummary:
    """Return what the folder at `path` says; whatever cannot be read makes a `damaged` run, and no error."""
    folder = RunFolder(path)
    try:
        with explained(path, "read"):
            is_over = is_there(folder.outcome)  # it is written while the folder is still locked
            locked = not is_over and is_locked(path)
        if not is_there(folder.config):
            return RunSummary(path, "running") if locked else RunSummary(path, "damaged", "has no config.toml")
        config = folder.read_config()
        records, timings = folder.records(), folder.timings()
        checkpoints = find_checkpoints(folder.checkpoints)
        ended = folder.read_outcome() if is_over else {}
    except (TinygradChatError, OSError) as error:
        return RunSummary(path, "damaged", str(error))
    except ValueError as error:
        return RunSummary(path, "damaged", f"outcome.json cannot be read ({error})")
    outcome = "running" if locked else ended.get("outcome", "killed")
    reason, ended_step = ended.get("reason", ""), ended.get("step", 0)
    if not records and not locked and is_there(folder.log) and folder.log.stat().st_size:
        return RunSummary(path, "damaged", "log.jsonl has no whole line")
    step = max([ended_step, *(int(record["step"]) for record in records)])
    best = min(evaluations(records), key=lambda record: record["val_loss"], default={})
    batch = config.tokens_per_step
    timed = timings[-1] if timings and is_number(timings[-1].get("seconds")) else {}
    return RunSummary(
        path,
        outcome,
        reason,
        model=config.recipe.model,
        parent=config.recipe.start_from,
        step=step,
        steps=None if config.schedule.steps == UNBOUNDED else config.schedule.steps,
        minutes=config.schedule.minutes,
        best_val_loss=best.get("val_loss"),
        best_step=best.get("step"),
        val_bpb=best.get("val_bpb"),
        tokens=step * batch,
        seconds=ended.get("seconds", timed.get("seconds")),
        tokens_per_second=timed["step"] * batch / timed["seconds"] if timed.get("step") and timed["seconds"] else None,
        parameters=_count_parameters(checkpoints[-1]) if checkpoints else None,
    )


def evaluations(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the lines of a log that hold an evaluation."""
    return [record for record in records if is_number(record.get("val_loss")) and is_number(record.get("val_bpb"))]


def is_number(value: Any) -> bool:
    """Return whether a log's value is a number that can be drawn."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST_DRAWN


def _count_parameters(checkpoint: Path) -> int | None:
    """Count a checkpoint's parameters by the head of its weights; None where that cannot be read."""
    try:
        expect_plain(checkpoint / WEIGHTS)
        with safe_open(checkpoint / WEIGHTS, framework="numpy") as weights:
            return sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    except (OSError, SafetensorError):
        return None
