"""How the time per token of a training step grows with context and with width, ours and PyTorch's.

Two layers, four heads, 4,096 tokens a step: contexts from 64 to 2,048 at width 128, and widths from 64 to 768 at
context 128. Each engine has a process of its own for each size; they take turns, and their first losses must agree.
Compared are the slopes of straight lines through the medians, both axes logarithmic: 1 is growth in proportion.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from bench import turns
from bench.chart import Curve, Panel, draw_curves
from bench.configurations import Configuration
from bench.record import write_result
from bench.worker import ENGINES

NAME = "scaling"
TOKENS = 4096
SWEEPS: dict[str, dict[int, Configuration]] = {
    "context": {T: Configuration.of(TOKENS // T, 65, T, 128, 4, 2) for T in (64, 128, 256, 512, 1024, 2048)},
    "width": {C: Configuration.of(TOKENS // 128, 65, 128, C, 4, 2) for C in (64, 128, 192, 256, 384, 512, 768)},
}
COMPARED = (turns.OURS, "torch eager")
AGREEING = 5
ROUND_SECONDS = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    turns.add_arguments(parser, configurations=tuple(SWEEPS))


def measure(arguments: argparse.Namespace) -> None:
    engines = turns.present_engines(COMPARED)
    rows = [
        row
        for sweep in arguments.configurations
        for size in SWEEPS[sweep]
        for row in _measure_one(sweep, size, engines, arguments.rounds)
    ]
    print(f"{'':<8} {'size':>5} {'':<14} {'us a token':>11} {'ours / this':>12}")
    for row in rows:
        print(
            f"{row['sweep']:<8} {row['size']:>5} {row['engine']:<14} {1e6 * row['seconds_a_token']:>11.2f} "
            f"{row['ours_over_this']:>12.2f}"
        )
    slopes = {sweep: {engine: _slope(rows, sweep, engine) for engine in engines} for sweep in arguments.configurations}
    for sweep, of_sweep in slopes.items():
        ours, theirs = (of_sweep[engine] for engine in COMPARED)
        verdict = "no faster than" if ours <= theirs else "faster than"
        print(f"{sweep}: ours grows {verdict} PyTorch's, slope {ours:.2f} against {theirs:.2f}")
    measured = {"tokens_a_step": TOKENS, "slopes": slopes, "rows": rows}
    command, packages = turns.command_of(NAME, arguments), turns.peer_packages(engines)
    print(f"written: {write_result(NAME, command, measured, packages=packages, folder=arguments.results)}")
    _draw(rows, slopes, arguments)


def _measure_one(sweep: str, size: int, engines: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    configuration, title = SWEEPS[sweep][size], f"{NAME} {sweep} {size}"
    with turns.initial_weights(configuration) as weights:
        commands = {e: ("bench.worker", e, configuration.sizes, weights, "keep-memory") for e in engines}
        with turns.open_workers(commands) as workers:
            first = {engine: workers[engine].ask(AGREEING) for engine in engines}
            losses = {engine: answer["losses"] for engine, answer in first.items()}
            turns.expect_agreement(title, losses, {e: ENGINES[e].tolerance for e in engines})
            counts = {e: max(1, int(ROUND_SECONDS / min(answer["seconds"]))) for e, answer in first.items()}
            samples: dict[str, list[float]] = {engine: [] for engine in engines}
            for engine in turns.take_turns(engines, rounds, title):
                samples[engine].append(statistics.median(workers[engine].ask(counts[engine])["seconds"]))
    return [
        {
            "sweep": sweep,
            "size": size,
            "configuration": configuration.sizes,
            "engine": engine,
            "seconds_a_token": statistics.median(samples[engine]) / configuration.tokens,
            "ours_over_this": turns.ratio(samples[engine], to=samples[turns.OURS]),
            "threads": first[engine]["threads"],
            "seconds_a_step": samples[engine],
        }
        for engine in engines
    ]


def _curve(rows: Sequence[dict[str, Any]], sweep: str, engine: str) -> tuple[list[int], list[float]]:
    chosen = [row for row in rows if row["sweep"] == sweep and row["engine"] == engine]
    return [row["size"] for row in chosen], [row["seconds_a_token"] for row in chosen]


def _slope(rows: Sequence[dict[str, Any]], sweep: str, engine: str) -> float:
    sizes, seconds = _curve(rows, sweep, engine)
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def _draw(rows: Sequence[dict[str, Any]], slopes: dict[str, dict[str, float]], arguments: argparse.Namespace) -> None:
    panels = []
    for sweep, of_sweep in slopes.items():
        curves = []
        for engine, slope in of_sweep.items():
            sizes, seconds = _curve(rows, sweep, engine)
            curves.append(Curve(engine, f"slope {slope:.2f}", sizes, [1e6 * each for each in seconds]))
        panels.append(Panel(sweep, curves))
    draw_curves(
        arguments.results,
        NAME,
        title="Growth of a training step",
        remark="microseconds a token, 2 layers, 4 heads; context at width 128, width at context 128",
        panels=panels,
    )
