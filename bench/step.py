"""Tokens per second of a whole training step, ours, PyTorch's and JAX's.

Each engine lives in a process of its own; they take turns. Same initial weights, same batches, AdamW, clipping, float32
but for one row, all cores. PyTorch and JAX get our setting for the memory of freed arrays, which makes PyTorch faster.
The losses of the first steps must agree before anything is timed. Quoted is the median over the rounds of the ratio
within a round, and the share that the model's operations have in the products that the machine could have done.
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
from bench.sgemm import share_of_sgemm
from bench.worker import ENGINES, FULL_PRECISION_TORCH

NAME = "step"
AGREEING = 20  # steps whose losses are compared
ROUND_SECONDS = 1.5  # how long each engine runs at its turn


def add_arguments(parser: argparse.ArgumentParser) -> None:
    turns.add_arguments(parser, configurations=tuple(CONFIGURATIONS))


def measure(arguments: argparse.Namespace) -> None:
    turns.expect_whole_results(arguments)
    engines = turns.present_engines(tuple(ENGINES))
    rows: list[dict[str, Any]] = []
    rates: dict[str, list[float]] = {}
    for name in arguments.configurations:
        new, rates[name] = _measure_one(name, engines, arguments.rounds)
        rows += new
    print(f"{'':<16} {'':<14} {'tokens/s':>10} {'of sgemm':>9} {'peak MiB':>9} {'ours / this':>12}")
    for row in rows:
        print(
            f"{row['configuration']:<16} {row['engine']:<14} {row['tokens_per_second']:>10,.0f} "
            f"{row['share_of_sgemm']:>9.1%} {row['peak_mib']:>9.0f} {row['ours_over_this']:>12.2f}"
        )
    measured = {
        "sgemm_gflops": statistics.median(rate for samples in rates.values() for rate in samples),
        "sgemm_samples": rates,
        "rows": rows,
    }
    command, packages = turns.command_of(NAME, arguments), turns.peer_packages(engines)
    print(f"written: {write_result(NAME, command, measured, packages=packages, folder=arguments.results)}")
    _draw(rows, engines, arguments)


def _measure_one(name: str, engines: Sequence[str], rounds: int) -> tuple[list[dict[str, Any]], list[float]]:
    """Return a row for each engine, and the rates of sgemm in GFLOP/s, one a round."""
    configuration = CONFIGURATIONS[name]
    with turns.initial_weights(configuration) as weights:
        commands = {e: ("bench.worker", e, configuration.sizes, weights, "keep-memory") for e in engines}
        with turns.open_workers(commands | {"sgemm": ("bench.sgemm",)}) as workers:
            turns.progress(f"{NAME} {name}: comparing the losses of {AGREEING} steps")
            losses = {engine: workers[engine].ask(AGREEING)["losses"] for engine in engines}
            turns.expect_agreement(f"{NAME} {name}", losses, {e: ENGINES[e].tolerance for e in engines})
            seconds = {engine: statistics.median(workers[engine].ask(5)["seconds"]) for engine in engines}
            counts = {engine: max(3, int(ROUND_SECONDS / seconds[engine])) for engine in engines}
            samples: dict[str, list[float]] = {engine: [] for engine in engines}
            rates: list[float] = []
            answers: dict[str, dict[str, Any]] = {}
            for turn in turns.take_turns([*engines, "sgemm"], rounds, f"{NAME} {name}"):
                if turn == "sgemm":
                    rates.append(workers[turn].ask(None))
                    continue
                answers[turn] = workers[turn].ask(counts[turn])
                samples[turn].append(statistics.median(answers[turn]["seconds"]))
    return [
        {
            "configuration": name,
            "engine": engine,
            "tokens_per_second": configuration.tokens / statistics.median(samples[engine]),
            "share_of_sgemm": share_of_sgemm(
                configuration, statistics.median(samples[engine]), statistics.median(rates)
            ),
            "ours_over_this": turns.ratio(samples[engine], to=samples[turns.OURS]),
            "peak_mib": answers[engine]["peak_mib"],
            "threads": answers[engine]["threads"],
            "final_loss_of_comparison": losses[engine][-1],
            "seconds_a_step": samples[engine],
        }
        for engine in engines
    ], rates


def _draw(rows: Sequence[dict[str, Any]], engines: Sequence[str], arguments: argparse.Namespace) -> None:
    """Draw speeds relative to the better PyTorch in full precision."""
    by_place = {(row["configuration"], row["engine"]): row for row in rows}
    names = arguments.configurations
    gains = {name: min(by_place[name, e]["ours_over_this"] for e in FULL_PRECISION_TORCH) for name in names}
    bars = [
        Bars(
            engine,
            [gains[name] / by_place[name, engine]["ours_over_this"] for name in names],
            [f"{by_place[name, engine]['tokens_per_second']:,.0f}" for name in names],
        )
        for engine in engines
    ]
    draw_bars(
        arguments.results,
        NAME,
        title="Training speed",
        remark="length: relative to the better of PyTorch eager and compiled; figures: tokens per second",
        groups=names,
        bars=bars,
        ratios=[times(gains[name]) for name in names],
        reference=1,
    )
