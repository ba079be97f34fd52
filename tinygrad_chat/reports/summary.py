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
from tinygrad_chat.files import is_locked, user_path
from tinygrad_chat.runs.checkpoint import WEIGHTS, find_checkpoints
from tinygrad_chat.runs.finding import RUNS, explain_missing, is_run
from tinygrad_chat.runs.folder import RunFolder
from tinygrad_chat.runs.records import TimingLine

LARGEST_DRAWN = 1e30  # larger than any that tells something; the squares of their sums are finite, too


@dataclass(frozen=True)
class RunSummary:
    """A run after `step` updates on `tokens` tokens, which took `seconds` of training. None is what is not known."""

    path: Path
    outcome: str
    """That of outcome.json; without it `running` or `killed`, and `damaged` where something cannot be read."""
    reason: str = ""
    """Why it failed, or what is damaged."""
    left_out: str = ""
    """What is wrong with the first line of its log or timing that does not hold what it must; such lines are left
    out."""
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
        if is_run(path):
            return path
    missing = explain_missing(user_path(name))
    default = "no run there; expected a run's folder or its name below runs/; see tgc runs"
    raise UsageError(f"{command}: {name}: {missing or default}")


def find_runs(folder: Path) -> tuple[list[RunSummary], list[Path]]:
    """Return a summary of each run in `folder`, the one that wrote last at the end, and the folders that hold none."""
    found = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    runs = sorted((path for path in found if is_run(path)), key=_last_written)
    return [summarize_run(path) for path in runs], [path for path in found if not is_run(path)]


def summarize_run(path: Path) -> RunSummary:
    """Return what the folder at `path` says; whatever cannot be read makes a `damaged` run, and no error."""
    folder = RunFolder(path)
    locked = is_locked(path) and not folder.outcome.exists()  # it is written while the folder is still locked
    if not folder.config.exists():
        return RunSummary(path, "running") if locked else RunSummary(path, "damaged", "has no config.toml")
    try:
        config = folder.read_config()
        log, timing = folder.read_log(), folder.read_timing()
        ended = None if locked or not folder.outcome.exists() else folder.read_outcome()
    except TinygradChatError as error:
        return RunSummary(path, "damaged", str(error))
    except OSError as error:
        name = Path(error.filename or path).name
        return RunSummary(path, "damaged", f"{name}: cannot be read ({error.strerror or error})")
    checkpoints = find_checkpoints(folder.checkpoints)
    if not log.lines and not locked and folder.log.exists() and folder.log.stat().st_size:
        return RunSummary(path, "damaged", log.unfit or "log.jsonl has no whole line")
    step = max([ended["step"] if ended else 0, *(record["step"] for record in log.records)])
    best = min(evaluations(log.records), key=lambda record: record["val_loss"], default={})
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
        best_step=best.get("step"),
        val_bpb=best.get("val_bpb"),
        tokens=step * batch,
        seconds=ended["seconds"] if ended else timed.get("seconds"),
        tokens_per_second=timed["step"] * batch / trained if timed["step"] and trained else None,
        parameters=_count_parameters(checkpoints[-1]) if checkpoints else None,
    )


def evaluations(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the lines of a log that hold an evaluation."""
    return [record for record in records if is_number(record.get("val_loss")) and is_number(record.get("val_bpb"))]


def is_number(value: Any) -> bool:
    """Return whether a log's value is there and is a number that can be drawn."""
    return isinstance(value, int | float) and abs(value) < LARGEST_DRAWN


def _last_written(path: Path) -> float:
    log = path / "log.jsonl"
    return (log if log.exists() else path).stat().st_mtime


def _count_parameters(checkpoint: Path) -> int | None:
    """Count a checkpoint's parameters by the head of its weights; None where that cannot be read."""
    try:
        with safe_open(checkpoint / WEIGHTS, framework="numpy") as weights:
            return sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    except (OSError, SafetensorError):
        return None
