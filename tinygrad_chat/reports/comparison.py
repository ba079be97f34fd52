"""Compares runs: their curves over tokens and over seconds, and how good each was at equal amounts of either.

Losses are in nats per token or, if the runs differ in tokenizer or text, in bits per byte. The curves are then over
bytes of text rather than tokens, since tokens of different runs are not comparable.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tinygrad_chat.config.groups import WHAT_TOKENS_ARE
from tinygrad_chat.config.record import SPECS, TrainingConfig
from tinygrad_chat.errors import UsageError
from tinygrad_chat.files import real_path
from tinygrad_chat.option import unmet_need
from tinygrad_chat.reports.summary import RunSummary, evaluations, is_number, summarize_run
from tinygrad_chat.runs.folder import RunFolder

NATS, BITS = "val_loss", "bits/byte"
AXES = {NATS: ("tokens", "seconds"), BITS: ("bytes", "seconds")}
"""What losses are plotted over, by their unit: how much text a run has read, and how long that took."""

BEGINNING = 0.05  # the share of a run whose steep fall the plots cut off, so that the rest is visible
SMOOTHING = 30  # a smoothed point is the mean over 1/30 of the curve on each side


@dataclass(frozen=True)
class Curve:
    """Losses (N,), with the training tokens, or bytes, `read` by then (N,) and the seconds of training (N,)."""

    read: np.ndarray
    seconds: np.ndarray
    losses: np.ndarray

    def along(self, axis: str) -> np.ndarray:
        """Return what the losses are plotted over: one of AXES."""
        return self.seconds if axis == "seconds" else self.read

    def below(self, top: float, axis: str) -> tuple[list[float], list[float]]:
        """Return amounts and losses of the points up to `top`, and of where the curve first falls to it."""
        amounts, losses = self.along(axis), self.losses
        shown = losses <= top
        first = int(shown.argmax()) if shown.any() else 0
        entry: list[tuple[float, float]] = []
        if first:
            entry = [(float(np.interp(-top, -losses[first - 1 : first + 1], amounts[first - 1 : first + 1])), top)]
        points = [*entry, *zip(amounts[shown].tolist(), losses[shown].tolist(), strict=True)]
        return [amount for amount, _ in points], [loss for _, loss in points]


@dataclass(frozen=True)
class ComparedRun:
    """A run in a comparison: `best` is its lowest validation loss, `training` is smoothed."""

    name: str
    summary: RunSummary
    config: TrainingConfig
    training: Curve
    validation: Curve

    def curves(self) -> list[Curve]:
        """Return those of the two curves that have points: a run that failed at once has no training loss."""
        return [curve for curve in (self.training, self.validation) if curve.losses.size]

    @property
    def best(self) -> float:
        """The lowest validation loss."""
        return float(self.validation.losses.min())

    def at(self, axis: str, amount: float) -> float:
        """Return the validation loss at an amount along one of AXES, interpolated linearly between evaluations."""
        return float(np.interp(amount, self.validation.along(axis), self.validation.losses))


@dataclass(frozen=True)
class Comparison:
    """Runs and the unit of their losses, `val_loss` (nats per token) or `bits/byte`; and why others are left out."""

    runs: Sequence[ComparedRun]
    unit: str
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def axes(self) -> tuple[str, str]:
        """What losses are plotted over: text read, in tokens or bytes, and seconds."""
        return AXES[self.unit]

    def reached_by_all(self, axis: str) -> float:
        """Return the largest amount along an axis that the evaluations of every run reach."""
        return min(float(run.validation.along(axis)[-1]) for run in self.runs)

    def losses_shown(self) -> tuple[float, float]:
        """Return the range of losses that plots show: all but the steep beginning."""
        lowest = min(float(curve.losses.min()) for run in self.runs for curve in run.curves())
        first = [run.curves()[0] for run in self.runs]
        starts = [float(np.interp(BEGINNING * curve.read[-1], curve.read, curve.losses)) for curve in first]
        starts += [float(run.validation.losses[1:].max(initial=lowest)) for run in self.runs]
        highest = max(starts)
        margin = 0.04 * (highest - lowest) or 0.1
        return lowest - margin, highest + margin

    def differing_settings(self) -> dict[str, list[Any]]:
        """Return the settings that differ between runs: by name, each run's value, or None where it plays no part."""
        settings = [run.config.settings() for run in self.runs]
        values = {
            name: [None if unmet_need(spec, each) else each[name] for each in settings] for name, spec in SPECS.items()
        }
        return {name: found for name, found in values.items() if any(value != found[0] for value in found)}


def compare_runs(paths: Mapping[str, Path]) -> Comparison:
    """Read the runs at `paths`, keyed by the names they are to have. Those that cannot be compared are left out.

    Raises UsageError for a run that is given twice, and if fewer than two can be compared.
    """
    if len(paths) < 2:
        raise UsageError(f"compare: expected at least two runs, received {len(paths)}")
    seen: dict[Path, str] = {}
    for name, path in paths.items():
        if real_path(path) in seen:
            raise UsageError(f"compare: {name}: is the same run as {seen[real_path(path)]}; name each run once")
        seen[real_path(path)] = name
    summaries = {name: summarize_run(path) for name, path in paths.items()}
    left_out = {name: lack for name, summary in summaries.items() if (lack := _lack(summary))}
    compared = [name for name in paths if name not in left_out]
    if len(compared) < 2:
        name, lack = next(iter(left_out.items()))
        raise UsageError(f"compare: {name}: {lack}; leave it out")
    configs = [RunFolder(paths[name]).read_config() for name in compared]
    settings = [config.settings() for config in configs]
    unit = NATS if len({tuple(each[name] for name in WHAT_TOKENS_ARE) for each in settings}) == 1 else BITS
    return Comparison([_read(name, summaries[name], unit) for name in compared], unit, left_out)


def _lack(summary: RunSummary) -> str:
    """Return why a run cannot be compared; empty if it can."""
    if summary.outcome == "damaged":
        return summary.reason
    if summary.best_val_loss is None:
        return "has no evaluation yet"
    return "" if _timed(summary) else "timing.jsonl has no complete line"


def _timed(summary: RunSummary) -> list[Mapping[str, Any]]:
    """Return the lines of a run's timing that hold the seconds."""
    return [line for line in RunFolder(summary.path).timings() if is_number(line.get("seconds"))]


def _read(name: str, summary: RunSummary, unit: str) -> ComparedRun:
    folder = RunFolder(summary.path)
    config = folder.read_config()
    timings = [(line["step"], line["seconds"]) for line in _timed(summary)]
    clock = np.array(timings, dtype=float).T
    records = folder.records()
    evaluated = evaluations(records)
    # Evaluations tell how many bits per byte one nat per token is, and so how many bytes a token has.
    bits_per_nat = float(np.mean([line["val_bpb"] / line["val_loss"] for line in evaluated if line["val_loss"]] or [1]))
    of_a_token = 1 / (bits_per_nat * math.log(2)) if unit == BITS else 1

    def curve(lines: Sequence[Mapping[str, Any]], key: str) -> Curve:
        steps = np.array([line["step"] for line in lines], dtype=float)
        losses = np.array([line[key] for line in lines], dtype=float)
        return Curve(steps * config.tokens_per_step * of_a_token, np.interp(steps, *clock), losses)

    training = curve([record for record in records if is_number(record.get("loss"))], "loss")
    losses = smooth(training.losses)
    if unit == BITS:
        losses = losses * bits_per_nat
    return ComparedRun(
        name,
        summary,
        config,
        dataclasses.replace(training, losses=losses),
        curve(evaluated, "val_loss" if unit == NATS else "val_bpb"),
    )


def smooth(losses: np.ndarray) -> np.ndarray:
    """Return the centred moving average of losses (N,) -> (N,), with fewer neighbours near the ends.

    >>> smooth(np.array([3.0, 1.0, 2.0])).tolist()
    [3.0, 1.0, 2.0]
    """
    radius = losses.size // SMOOTHING
    sums = np.concatenate([[0.0], np.cumsum(losses)])
    places = np.arange(losses.size)
    first, last = np.maximum(places - radius, 0), np.minimum(places + radius, losses.size - 1)
    return (sums[last + 1] - sums[first]) / (last - first + 1)
