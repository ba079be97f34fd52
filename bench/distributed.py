"""Several processes: two ranks of ours on two cores beside two threads of one process, and beside PyTorch.

PyTorch's side is DistributedDataParallel over gloo, a process per rank with one thread, eager as people run it on a
CPU. For nanochat's model it is upstream's own code, with the optimiser that every rank repeats: the sharded one needs
futures that gloo does not have. All have the same weights and batches, and their losses must agree before anything is
timed. The results are tokens per second, the time in communication, the memory of a rank, and how fast ranks exchange a
gradient, compared with MPI's bare calls. Then runs of 1, 2 and 4 ranks are compared with the model of a step's time
that docs/distributed.md applies to more ranks.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import turns
from bench.chart import Curve, Panel, draw_curves
from bench.configurations import BETAS, CLIP, CONFIGURATIONS, LEARNING_RATE, WEIGHT_DECAY
from bench.peers import nanochat
from bench.record import write_result
from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.config.resolve import Facts, resolve
from tinygrad_chat.interchange.nanochat import to_nanochat
from tinygrad_chat.models.gpt import GPT
from tinygrad_chat.planning.ranks import StepModel
from tinygrad_chat.seeds import rng

NAME = "distributed"
THREADS, RANKS, TORCH, BARE = "2 threads", "2 ranks", "torch DDP gloo", "bare MPI"
OVERLAPPED = "2 ranks, during the sweep"
"""Ours again, with gradients that go to the other rank during the backward sweep, as they do between machines."""
NANOCHAT = "nanochat d4"
CHOSEN = ("10M", "small-bpe", NANOCHAT)
STEPS_OF_A_TURN = 4
AGREEING = 6
TOLERANCE = 2e-3
COMPARED = (1, 2, 4)
DRAWN = tuple(2**power for power in range(11))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    turns.add_arguments(parser, configurations=CHOSEN)
    nanochat.add_argument(parser)


def measure(arguments: argparse.Namespace) -> None:
    turns.expect_whole_results(arguments)
    turns.present_engines(("torch",))
    rows, skipped = [], []
    for name in arguments.configurations:
        reason = nanochat.why_absent(arguments.nanochat) if name == NANOCHAT else None
        if reason:
            turns.progress(f"{NAME} {name}: left out: {reason}")
            skipped.append({"configuration": name, "reason": reason})
        else:
            rows += _measure_one(name, arguments)
    exchange = _exchange(arguments.rounds)
    model = _step_model(arguments.rounds, exchange)
    _print(rows, exchange, model)
    measured = {"rows": rows, "skipped": skipped, "exchange": exchange, "step_model": model}
    command = f"{turns.command_of(NAME, arguments)} --nanochat DIR"
    packages = ("torch", "mpi4py", "mpich")
    print(f"written: {write_result(NAME, command, measured, packages=packages, folder=arguments.results)}")
    _draw(model, arguments)


def settings_of(name: str) -> tuple[TrainingConfig, int]:
    """Return a configuration's settings, with a constant learning rate, and the size of its vocabulary."""
    if name == NANOCHAT:
        settings = {"model": "nanochat", "depth": 4, "context": 256, "batch_size": 8, "steps": 1000}
        return resolve(settings, Facts(vocabulary=256)), 256
    of = CONFIGURATIONS[name]
    options = of.options
    settings = {
        "context": options.context,
        "width": options.width,
        "heads": options.heads,
        "layers": options.layers,
        "batch_size": of.batch,
        "lr": LEARNING_RATE,
        "lr_schedule": "constant",
        "warmup": 0,
        "beta1": BETAS[0],
        "beta2": BETAS[1],
        "weight_decay": WEIGHT_DECAY,
        "clip": CLIP,
        "steps": 1000,
    }
    return resolve(settings, Facts(vocabulary=of.vocabulary)), of.vocabulary


def _measure_one(name: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row for each engine."""
    config, vocabulary = settings_of(name)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.npz"
        drawn = GPT(vocabulary, config.model, random=rng(config.run.seed, "initialisation")).parameters().state()
        if name == NANOCHAT:
            noise = np.random.default_rng(1)  # upstream's zeros would learn nothing at first
            drawn = {key: array + 0.01 * noise.normal(size=array.shape) for key, array in drawn.items()}
            drawn = {key: array.astype(np.float32) for key, array in drawn.items()}
        np.savez(weights, **drawn)
        theirs = Path(folder) / "theirs.npz"
        np.savez(theirs, **(to_nanochat(drawn, config.model) if name == NANOCHAT else drawn))  # pyright: ignore[reportArgumentType]
        request = {
            "config": config.tables(),
            "vocabulary": vocabulary,
            "weights": str(weights),
            "their_weights": str(theirs),
            "name": name,
            "checkout": str(Path(arguments.nanochat).resolve()) if name == NANOCHAT else None,
        }
        engines = (THREADS, RANKS, OVERLAPPED, TORCH)
        commands = {engine: ("bench.rank_worker", "lead", engine, json.dumps(request)) for engine in engines}
        with turns.open_workers(commands) as workers:
            losses = {engine: workers[engine].ask(AGREEING)["losses"] for engine in engines}
            losses[turns.OURS] = losses.pop(THREADS)
            turns.expect_agreement(f"{NAME} {name}", losses, dict.fromkeys(losses, TOLERANCE))
            answers: dict[str, list[dict[str, Any]]] = {engine: [] for engine in engines}
            for engine in turns.take_turns(engines, arguments.rounds, f"{NAME} {name}"):
                answers[engine].append(workers[engine].ask(STEPS_OF_A_TURN))
    seconds = {engine: [statistics.median(each["seconds"]) for each in answers[engine]] for engine in engines}
    return [
        {
            "configuration": name,
            "engine": engine,
            "seconds_a_step": statistics.median(seconds[engine]),
            "tokens_per_second": config.tokens_per_step / statistics.median(seconds[engine]),
            "ranks_over_this": turns.ratio(seconds[engine], to=seconds[RANKS]),
            "communication_share": _share(answers[engine]),
            "rank_mib": answers[engine][-1]["rank_mib"],
            "optimizer_mib": answers[engine][-1].get("optimizer_mib"),
            "samples": seconds[engine],
        }
        for engine in engines
    ]


def _share(answers: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the share of a step's time that rank 0 communicates or waits for others; None where it is unknown."""
    if answers[0].get("communication") is None:
        return None
    return statistics.median(each["communication"] / sum(each["seconds"]) for each in answers)


def _exchange(rounds: int) -> dict[str, Any]:
    """Return the seconds in which two ranks exchange a gradient of 16 MiB, by our communicator and by bare calls."""
    engines = (RANKS, BARE)
    commands = {engine: ("bench.rank_worker", "lead", f"exchange {engine}", "{}") for engine in engines}
    seconds: dict[str, list[float]] = {engine: [] for engine in engines}
    with turns.open_workers(commands) as workers:
        for engine in turns.take_turns(engines, max(rounds, 5), f"{NAME}, exchange"):
            seconds[engine].append(workers[engine].ask(1)["exchange"])
    return {
        "bytes": 16 << 20,
        "seconds": {engine: statistics.median(each) for engine, each in seconds.items()},
        "share_of_bare": turns.ratio(seconds[BARE], to=seconds[RANKS]),
        "samples": seconds,
    }


def _step_model(rounds: int, exchange: Mapping[str, Any]) -> dict[str, Any]:
    """Measure steps of the 10M model with 1, 2 and 4 ranks of a thread each, and the parts of a step; compare them with
    what the model of a step's time predicts.

    Four ranks on two cores take turns at computing, which the model takes into account.
    """
    config, vocabulary = settings_of("10M")
    request = json.dumps({"config": config.tables(), "vocabulary": vocabulary, "weights": None, "name": "10M"})
    commands = {ranks: ("bench.rank_worker", "lead", f"{ranks} of a thread", request) for ranks in COMPARED}
    answers: dict[int, list[dict[str, Any]]] = {ranks: [] for ranks in COMPARED}
    with turns.open_workers({str(ranks): command for ranks, command in commands.items()}) as workers:
        for ranks in turns.take_turns(COMPARED, max(3, rounds // 2), f"{NAME}, ranks of a thread"):
            answers[ranks].append(workers[str(ranks)].ask(STEPS_OF_A_TURN))
    measured = {
        ranks: statistics.median(statistics.median(each["seconds"]) for each in of_ranks)
        for ranks, of_ranks in answers.items()
    }
    optimizer = statistics.median(each["optimizer_seconds"] for each in answers[1])
    model = StepModel(
        gradient=measured[1] - optimizer,
        optimizer=optimizer,
        bytes=4 * answers[1][0]["parameters"],
        bandwidth=exchange["bytes"] / exchange["seconds"][RANKS],
        latency=1e-4,
    )
    cores = os.cpu_count() or 1
    return {
        "gradient_seconds": model.gradient,
        "optimizer_seconds": model.optimizer,
        "gradient_bytes": model.bytes,
        "bandwidth": model.bandwidth,
        "latency": model.latency,
        "cores": cores,
        "measured": {str(ranks): seconds for ranks, seconds in measured.items()},
        "predicted": {str(ranks): model.seconds(ranks, ranks_a_core=max(1, ranks / cores)) for ranks in COMPARED},
        "drawn": {str(ranks): model.seconds(ranks) for ranks in DRAWN},
    }


def _print(rows: Sequence[Mapping[str, Any]], exchange: Mapping[str, Any], model: Mapping[str, Any]) -> None:
    print(f"{'':<13} {'':<25} {'tokens/s':>9} {'2 ranks':>8} {'in communication':>17} {'MiB a rank':>11}")
    for row in rows:
        share = "" if row["communication_share"] is None else f"{row['communication_share']:.0%}"
        print(
            f"{row['configuration']:<13} {row['engine']:<25} {row['tokens_per_second']:>9,.0f} "
            f"{row['ranks_over_this']:>7.2f}x {share:>17} {max(row['rank_mib']):>11,.0f}"
        )
    print(f"exchange of 16 MiB: {exchange['share_of_bare']:.0%} as fast as MPI's bare calls")
    for ranks, seconds in model["measured"].items():
        print(f"{ranks} ranks of a thread: {seconds:.3f} s a step, predicted {model['predicted'][ranks]:.3f} s")


def _draw(model: Mapping[str, Any], arguments: argparse.Namespace) -> None:
    def speedup(seconds: Mapping[str, float]) -> tuple[list[float], list[float]]:
        return [int(ranks) for ranks in seconds], [seconds["1"] / each for each in seconds.values()]

    draw_curves(
        arguments.results,
        NAME,
        title="What more ranks bring",
        remark="10M model, one batch for all; a core a rank; gradients exchanged as fast as two ranks do here",
        panels=[
            Panel(
                "ranks, and how many times as fast as one they are",
                [
                    Curve("model of a step", "a core a rank", *speedup(model["drawn"])),
                    Curve("measured here", "on two cores", *speedup(model["measured"])),
                ],
            )
        ],
    )
