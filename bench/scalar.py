"""Seconds of a scalar training step on microgpt's model: ours, and the two forms in which textbooks write a Value.

1 layer, width 16, 4 heads, context 8, 27 tokens, rmsnorm, squared relu, untied. One and the same program of plain
operators runs on our Value and on both textbook forms; our own model runs on fused nodes. Each engine has a process of
its own and they take turns: same weights, same batches, gradient descent. Losses and gradients must agree to 1e-9
before anything is timed.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bench import turns
from bench.record import write_result
from bench.scalar_worker import CLOSURES, ENGINES, FUSED, LOCAL_GRADIENTS, OPTIONS, PLAIN, SAME_COLLECTOR, VOCABULARY
from tinygrad_chat.models.scalar import ScalarModel

NAME = "scalar"
AGREEING = 3
STEPS = 3
"""In a turn, so that what one step leaves to the garbage collector is paid for in another of the same engine."""
TOLERANCE = 1e-9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    turns.add_arguments(parser)


def measure(arguments: argparse.Namespace) -> None:
    samples: dict[str, list[float]] = {name: [] for name in ENGINES}
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.npz"
        np.savez(weights, **ScalarModel(VOCABULARY, OPTIONS).parameters().state())  # pyright: ignore[reportArgumentType]
        commands = {name: ("bench.scalar_worker", name, str(weights)) for name in ENGINES}
        with turns.open_workers(commands) as workers:
            difference = _expect_agreement({name: workers[name].ask({"steps": AGREEING}) for name in ENGINES})
            for name in turns.take_turns(ENGINES, arguments.rounds, NAME):
                samples[name].append(workers[name].ask({"steps": STEPS})["seconds"])
    for name, seconds in samples.items():
        print(f"{name:<42} {1000 * statistics.median(seconds):7.1f} ms a step")
    pairs = [(PLAIN, CLOSURES), (PLAIN, LOCAL_GRADIENTS), (PLAIN, SAME_COLLECTOR), (FUSED, LOCAL_GRADIENTS)]
    ratios = {f"{ours} / {theirs}": turns.ratio(samples[ours], samples[theirs]) for ours, theirs in pairs}
    for what, ratio in ratios.items():
        print(f"{what:<60} {ratio:5.2f}")
    measured: dict[str, Any] = {
        "largest_difference": difference,
        "ratios": ratios,
        "seconds_a_step": {name: statistics.median(seconds) for name, seconds in samples.items()},
        "samples": samples,
    }
    written = write_result(NAME, turns.command_of(NAME, arguments), measured, folder=arguments.results)
    print(f"written: {written}")


def _expect_agreement(answers: dict[str, Any]) -> float:
    """Return the largest difference of a loss or a gradient to ours. Raises BenchmarkError where it is too large."""
    ours = answers[PLAIN]
    worst = 0.0
    for name, theirs in answers.items():
        for what in ("losses", "gradient"):
            difference = float(np.max(np.abs(np.array(theirs[what]) - np.array(ours[what]))))
            if not difference <= TOLERANCE:
                raise turns.BenchmarkError(f"{name}: its {what} differ by {difference:.1e}; nothing was timed")
            worst = max(worst, difference)
    return worst
