"""Tokens per second of greedy generation with a key/value cache, ours and PyTorch's.

The 10M configuration, a prompt of 64 tokens, 192 new ones, float32, 1, 8 and 32 sequences at a time. Each engine lives
in a process of its own; they take turns. Before anything is timed, the logits of every step must agree on the same
tokens, and so must the tokens that each engine chooses, but where its two best logits are closer than that tolerance.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bench import turns
from bench.chart import Bars, draw_bars, times
from bench.configurations import CONFIGURATIONS, Configuration
from bench.decoder import DECODERS
from bench.record import write_result
from tinygrad_chat.errors import UsageError

NAME = "decode"
BATCHES = (1, 8, 32)
PROMPT, NEW = 64, 192
TOLERANCE = 1e-4  # of the logits, whose size is about 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    turns.add_arguments(parser, configurations=tuple(CONFIGURATIONS), chosen=("10M",))


def measure(arguments: argparse.Namespace) -> None:
    turns.expect_whole_results(arguments)
    engines = turns.present_engines(tuple(DECODERS))
    cases = [
        (name, dataclasses.replace(CONFIGURATIONS[name], batch=batch))
        for name in arguments.configurations
        for batch in BATCHES
    ]
    for name, configuration in cases:
        if configuration.options.context <= PROMPT:
            raise UsageError(f"--configurations {name}: expected a context above {PROMPT}, the prompt's length")
    rows = [
        row for name, configuration in cases for row in _measure_one(name, configuration, engines, arguments.rounds)
    ]
    print(f"{'':<16} {'batch':>5} {'':<14} {'tokens/s':>10} {'ours / this':>12}")
    for row in rows:
        print(
            f"{row['configuration']:<16} {row['batch']:>5} {row['engine']:<14} {row['tokens_per_second']:>10,.0f} "
            f"{row['ours_over_this']:>12.2f}"
        )
    measured = {"prompt": PROMPT, "new": NEW, "rows": rows}
    command, packages = turns.command_of(NAME, arguments), turns.peer_packages(engines)
    print(f"written: {write_result(NAME, command, measured, packages=packages, folder=arguments.results)}")
    _draw(rows, engines, cases, arguments)


def _measure_one(name: str, configuration: Configuration, engines: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    batch, options = configuration.batch, configuration.options
    title = f"{NAME} {name}, batch {batch}"
    prompt = np.random.default_rng(0).integers(configuration.vocabulary, size=(batch, PROMPT)).tolist()
    new = min(NEW, options.context - PROMPT)
    with turns.initial_weights(configuration) as weights:
        commands = {engine: ("bench.decoder", engine, configuration.sizes, weights) for engine in engines}
        with turns.open_workers(commands) as workers:
            turns.progress(f"{title}: comparing the logits of {new} steps")
            agreement = _expect_agreement(title, workers, prompt, new)
            request = {"prompt": prompt, "new": new}
            for worker in workers.values():
                worker.ask(request)  # PyTorch may compile a third time
            answers: dict[str, dict[str, Any]] = {}
            samples: dict[str, list[float]] = {engine: [] for engine in engines}
            for engine in turns.take_turns(engines, rounds, title):
                answers[engine] = workers[engine].ask(request)
                samples[engine].append(answers[engine]["seconds"])
    return [
        {
            "configuration": name,
            "batch": batch,
            "engine": engine,
            "tokens_per_second": batch * new / statistics.median(samples[engine]),
            "ours_over_this": turns.ratio(samples[engine], to=samples[turns.OURS]),
            "threads": answers[engine]["threads"],
            **agreement[engine],
            "seconds": samples[engine],
        }
        for engine in engines
    ]


def _expect_agreement(
    title: str, workers: Mapping[str, turns.Worker], prompt: list[list[int]], new: int
) -> dict[str, dict[str, Any]]:
    """Return for each engine how far its logits lie from ours on the tokens that we generate, and how many tokens it
    chooses otherwise, all of them near ties. Exits with one line where one is further off."""
    chosen = {
        engine: np.array(worker.ask({"prompt": prompt, "new": new})["tokens"]) for engine, worker in workers.items()
    }
    request = {"prompt": prompt, "forced": chosen[turns.OURS].tolist()}
    logits = {engine: np.array(worker.ask(request)["logits"]) for engine, worker in workers.items()}
    ours = logits[turns.OURS]
    second, best = np.moveaxis(np.sort(ours, axis=-1)[..., -2:], -1, 0)
    near_tie = best - second < 2 * TOLERANCE
    agreement = {}
    for engine, theirs in logits.items():
        difference = float(np.abs(theirs - ours).max())
        if not difference <= TOLERANCE:
            raise turns.BenchmarkError(
                f"{title}: expected logits of {engine} within {TOLERANCE:.0e} of ours, "
                f"received a difference of {difference:.1e}; nothing was timed"
            )
        otherwise = theirs.argmax(-1) != chosen[turns.OURS]
        # From a near tie on a sequence may go its own way: its tokens are compared up to there.
        comparable = np.cumsum(near_tie, axis=1) - near_tie == 0
        if (otherwise & ~near_tie).any() or ((chosen[engine] != chosen[turns.OURS]) & comparable & ~near_tie).any():
            raise turns.BenchmarkError(
                f"{title}: expected {engine} to choose the same tokens as ours; nothing was timed"
            )
        agreement[engine] = {"logit_difference": difference, "near_ties_chosen_otherwise": int(otherwise.sum())}
    return agreement


def _draw(
    rows: Sequence[dict[str, Any]],
    engines: Sequence[str],
    cases: Sequence[tuple[str, Configuration]],
    arguments: argparse.Namespace,
) -> None:
    """Draw speeds relative to the better of the peers."""
    by_engine = {engine: [row for row in rows if row["engine"] == engine] for engine in engines}
    peers = [by_engine[engine] for engine in engines if engine not in (turns.OURS, turns.PLAIN)]
    gains = [min(row["ours_over_this"] for row in case) for case in zip(*peers, strict=True)]
    bars = [
        Bars(
            engine,
            [gain / row["ours_over_this"] for gain, row in zip(gains, by_engine[engine], strict=True)],
            [f"{row['tokens_per_second']:,.0f}" for row in by_engine[engine]],
        )
        for engine in engines
    ]
    draw_bars(
        arguments.results,
        NAME,
        title="Greedy generation with a key/value cache",
        remark="length: relative to the better of PyTorch eager and compiled; figures: tokens per second",
        groups=[f"{name}, batch {configuration.batch}" for name, configuration in cases],
        bars=bars,
        ratios=[times(gain) for gain in gains],
        reference=1,
    )
