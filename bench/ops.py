"""Milliseconds of every op that a GPT uses, forward and backward, ours and PyTorch's.

At the sizes of a training step. Each engine lives in a process of its own; they take turns. Values and all gradients
must agree before anything is timed. Ours keeps the memory of freed arrays, and so does PyTorch here. The optimiser's
step has no backward: its row is clipping and AdamW on all weights. The last row is a chain of ops that do nothing.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import turns
from bench.chart import Bars, draw_bars, times
from bench.configurations import CONFIGURATIONS
from bench.operations import OPS
from bench.record import write_result

NAME = "ops"
COMPARED = (turns.OURS, "torch eager")
TOLERANCE = 1e-4  # of the largest element
ROUND_SECONDS = 0.15  # of each op at each turn


def add_arguments(parser: argparse.ArgumentParser) -> None:
    turns.add_arguments(parser, configurations=tuple(CONFIGURATIONS), chosen=("10M", "shakespeare-cpu"))


def measure(arguments: argparse.Namespace) -> None:
    engines = turns.present_engines(COMPARED)
    rows = [row for name in arguments.configurations for row in _measure_one(name, engines, arguments.rounds)]
    print(f"{'':<16} {'':<14} {'':<14} {'forward ms':>11} {'backward ms':>12} {'ours / this':>12}")
    for row in rows:
        print(
            f"{row['configuration']:<16} {row['op']:<14} {row['engine']:<14} {1e3 * row['forward']:>11.3f} "
            f"{1e3 * row['backward']:>12.3f} {row['ours_over_this']:>12.2f}"
        )
    command, packages = turns.command_of(NAME, arguments), turns.peer_packages(engines)
    print(f"written: {write_result(NAME, command, {'rows': rows}, packages=packages, folder=arguments.results)}")
    _draw(rows, arguments)


def _measure_one(name: str, engines: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    configuration = CONFIGURATIONS[name]
    samples: dict[tuple[str, str], list[dict[str, float]]] = {(op, e): [] for op in OPS for e in engines}
    with turns.initial_weights(configuration) as weights:
        commands = {engine: ("bench.operations", engine, configuration.sizes, weights) for engine in engines}
        with turns.open_workers(commands) as workers:
            turns.progress(f"{NAME} {name}: comparing values and gradients")
            threads = _expect_agreement(name, workers)
            for op in OPS:
                for engine in turns.take_turns(engines, rounds, f"{NAME} {name}: {op}"):
                    samples[op, engine].append(workers[engine].ask({"op": op, "seconds": ROUND_SECONDS}))
    totals = {key: [each["forward"] + each["backward"] for each in rounds] for key, rounds in samples.items()}
    return [
        {
            "configuration": name,
            "op": op,
            "engine": engine,
            "forward": statistics.median(each["forward"] for each in of_engine),
            "backward": statistics.median(each["backward"] for each in of_engine),
            "ours_over_this": turns.ratio(totals[op, engine], to=totals[op, turns.OURS]),
            "threads": threads[engine],
            "samples": of_engine,
        }
        for (op, engine), of_engine in samples.items()
    ]


def _expect_agreement(name: str, workers: Mapping[str, turns.Worker]) -> dict[str, Any]:
    """Return each engine's threads. Exits with one line where a value or a gradient differs from ours."""
    threads = {}
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "results.npz")
        for op in OPS:
            results = {}
            for engine, worker in workers.items():
                threads[engine] = worker.ask({"op": op, "results": path})["threads"]
                results[engine] = dict(np.load(path))
            for engine, theirs in results.items():
                _expect_equal(f"{NAME} {name}: {op} of {engine}", theirs, results[turns.OURS])
    return threads


def _expect_equal(what: str, theirs: Mapping[str, np.ndarray], ours: Mapping[str, np.ndarray]) -> None:
    if theirs.keys() != ours.keys():
        raise turns.BenchmarkError(
            f"{what}: expected {', '.join(ours)}, received {', '.join(theirs)}; nothing was timed"
        )
    for name, array in ours.items():
        difference = float(np.abs(theirs[name] - array).max() / np.abs(array).max())
        if not difference <= TOLERANCE:
            raise turns.BenchmarkError(
                f"{what}: expected a {name} within {TOLERANCE:.0e} of ours, relative to its largest element, "
                f"received a difference of {difference:.1e}; nothing was timed"
            )


def _draw(rows: Sequence[dict[str, Any]], arguments: argparse.Namespace) -> None:
    """Draw speeds relative to PyTorch."""
    ours, theirs = ([row for row in rows if row["engine"] == engine] for engine in COMPARED)
    both = [[1e3 * (row["forward"] + row["backward"]) for row in of_engine] for of_engine in (ours, theirs)]
    gains = [row["ours_over_this"] for row in theirs]
    texts = [f"{mine:.3g} / {yours:.3g}" for mine, yours in zip(*both, strict=True)]
    draw_bars(
        arguments.results,
        NAME,
        title="Single ops, forward and backward",
        remark="length: speed relative to PyTorch eager, the dashed line; figures: milliseconds, ours / PyTorch's",
        groups=[f"{row['op']}, {row['configuration']}" for row in ours],
        bars=[Bars(turns.OURS, gains, texts)],
        ratios=[times(gain) for gain in gains],
        reference=1,
    )
