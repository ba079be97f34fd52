"""Peak resident memory of training, ours, PyTorch's and JAX's.

Every sample is a fresh process that takes 20 steps of the same weights and batches, whose losses must agree; the
processes take turns. Beside the peak stands what the process held after its imports. Nobody's allocator is touched but
our own, as for our users. PyTorch compiles in processes of their own, which are not counted.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from typing import Any

from bench import turns
from bench.chart import Bars, draw_bars, times
from bench.configurations import CONFIGURATIONS
from bench.record import write_result
from bench.worker import ENGINES, FULL_PRECISION_TORCH

NAME = "memory"
STEPS = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    turns.add_arguments(parser, configurations=tuple(CONFIGURATIONS))


def measure(arguments: argparse.Namespace) -> None:
    turns.expect_whole_results(arguments)
    engines = turns.present_engines([turns.OURS, turns.PLAIN, *FULL_PRECISION_TORCH, "jax jit"])
    rows = [row for name in arguments.configurations for row in _measure_one(name, engines, arguments.rounds)]
    print(f"{'':<16} {'':<14} {'imports MiB':>12} {'peak MiB':>9} {'ours / this':>12}")
    for row in rows:
        print(
            f"{row['configuration']:<16} {row['engine']:<14} {row['imported_mib']:>12.0f} {row['peak_mib']:>9.0f} "
            f"{row['ours_over_this']:>12.2f}"
        )
    command, packages = turns.command_of(NAME, arguments), turns.peer_packages(engines)
    measured = {"steps": STEPS, "rows": rows}
    print(f"written: {write_result(NAME, command, measured, packages=packages, folder=arguments.results)}")
    _draw(rows, engines, arguments)


def _measure_one(name: str, engines: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    configuration = CONFIGURATIONS[name]
    answers: dict[str, list[dict[str, Any]]] = {engine: [] for engine in engines}
    with turns.initial_weights(configuration) as weights:
        for engine in turns.take_turns(engines, rounds, f"{NAME} {name}"):
            with turns.open_workers({engine: ("bench.worker", engine, configuration.sizes, weights)}) as workers:
                answers[engine].append(workers[engine].ask(STEPS))
            losses = {e: of_engine[-1]["losses"] for e, of_engine in answers.items() if of_engine}
            turns.expect_agreement(f"{NAME} {name}", losses, {e: ENGINES[e].tolerance for e in engines})
    samples = {
        engine: {key: [answer[key] for answer in of_engine] for key in ("imported_mib", "peak_mib")}
        for engine, of_engine in answers.items()
    }
    return [
        {
            "configuration": name,
            "engine": engine,
            "imported_mib": statistics.median(samples[engine]["imported_mib"]),
            "peak_mib": statistics.median(samples[engine]["peak_mib"]),
            "ours_over_this": turns.ratio(samples[turns.OURS]["peak_mib"], to=samples[engine]["peak_mib"]),
            "threads": answers[engine][-1]["threads"],
            "final_loss_of_comparison": answers[engine][-1]["losses"][-1],
            "samples": samples[engine],
        }
        for engine in engines
    ]


def _draw(rows: Sequence[dict[str, Any]], engines: Sequence[str], arguments: argparse.Namespace) -> None:
    by_engine = {engine: [row for row in rows if row["engine"] == engine] for engine in engines}
    draw_bars(
        arguments.results,
        NAME,
        title="Peak resident memory of training",
        remark="MiB, and ours over that of PyTorch eager; pale: what the imports take",
        groups=arguments.configurations,
        bars=[
            Bars(
                engine,
                [row["peak_mib"] for row in of_engine],
                [f"{row['peak_mib']:,.0f}" for row in of_engine],
                pale=[row["imported_mib"] for row in of_engine],
            )
            for engine, of_engine in by_engine.items()
        ],
        ratios=[times(row["ours_over_this"]) for row in by_engine["torch eager"]],
    )
