"""Whole runs, as a person starts them: `tgc train` beside a plain training script in PyTorch, to the last second.

Start, data, steps, evaluations, checkpoints, end: each run is a fresh process, and they take turns, on a quiet machine
and beside a process that computes half of the time. Both sides train the same model on the same text, as many steps of
as many windows, evaluate on the same tokens at the same steps, and save then. Their batches differ, so their losses do
by chance: at the end they must agree to 0.1 nats. Quoted are the seconds to the end and to a validation loss, and the
speed of the training steps in `tgc train` beside that of bare steps, each the median over stretches of 10 steps: where
a machine is shared, a mean over a whole run lies far from a median over steps.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench import turns
from bench.busy import busy
from bench.chart import Bars, draw_bars, times
from bench.peers import nanochat
from bench.record import write_result
from tinygrad_chat import GPT
from tinygrad_chat.config.files import read_settings
from tinygrad_chat.config.record import TrainingConfig, from_saved
from tinygrad_chat.config.resolve import Facts, resolve
from tinygrad_chat.runs.folder import RunFolder
from tinygrad_chat.seeds import rng
from tinygrad_chat.text.corpora import open_corpus

NAME = "train"
EAGER, COMPILED = "torch eager", "torch compile"
ROUNDS = 3
QUIET, BUSY = "quiet", "busy"
GOAL = 2.0  # nats a token
AGREEMENT = 0.1  # nats a token
STRETCHES_OF_A_TURN = 6


@dataclass(frozen=True)
class Whole:
    """A run to take: `preset` or none, and the settings over it. With `upstream` the peer's model is nanochat's own."""

    preset: str | None
    settings: dict[str, Any]
    upstream: bool = False


RUNS = {
    "shakespeare-cpu": Whole("shakespeare-cpu", {"steps": 600, "eval_every": 100}),
    "nanochat d4": Whole(
        None,
        {
            "model": "nanochat",
            "tokenizer": "characters",
            "depth": 4,
            "context": 256,
            "batch_size": 8,
            "steps": 80,
            "eval_every": 40,
        },
        upstream=True,
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    turns.add_arguments(parser, configurations=tuple(RUNS))
    parser.set_defaults(rounds=ROUNDS)
    parser.add_argument("--data", default="shakespeare", help="the tiny Shakespeare text, if it is at hand as a file")
    nanochat.add_argument(parser)


def measure(arguments: argparse.Namespace) -> None:
    turns.expect_whole_results(arguments)
    turns.present_engines(("torch",))
    rows, skipped, rates = [], [], []
    command = f"{turns.command_of(NAME, arguments)} --data FILE --nanochat DIR"
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        documents = open_corpus(arguments.data).documents()
        text.write_text("".join(piece for document in documents for piece in document), encoding="utf-8")
        for name in arguments.configurations:
            absent = nanochat.why_absent(arguments.nanochat) if RUNS[name].upstream else None
            if absent:
                turns.progress(f"{NAME} {name}: left out: {absent}")
                skipped.append({"configuration": name, "reason": absent})
                continue
            new, new_rates = _measure_one(name, text, Path(folder), arguments)
            rows += new
            rates += new_rates
            # Now and not at the end: an error in the next configuration would lose what took a quarter of an hour.
            measured = {"sgemm_gflops": statistics.median(rates), "goal": GOAL, "skipped": skipped, "rows": rows}
            print(f"written: {write_result(NAME, command, measured, packages=('torch',), folder=arguments.results)}")
            _print(new)
    if rows:
        _draw(rows, arguments)


def _print(rows: Sequence[Mapping[str, Any]]) -> None:
    print(f"{'':<16} {'':<6} {'':<14} {'seconds':>8} {f'to {GOAL}':>8} {'val_loss':>9} {'this / ours':>12}")
    for row in rows:
        reached = "" if row["seconds_to_goal"] is None else f"{row['seconds_to_goal']:.1f}"
        print(
            f"{row['configuration']:<16} {row['machine']:<6} {row['engine']:<14} {row['seconds']:>8.1f} {reached:>8} "
            f"{row['val_loss']:>9.4f} {row['this_over_ours']:>12.2f}"
        )
        if "tokens_per_second" in row:
            print(f"{'':<24} of which steps {row['step_seconds']:.1f} s, {row['tokens_per_second']:,.0f} tokens/s")
            print(f"{'':<24} bare steps {row['tokens_per_second_of_bare_steps']:,.0f} tokens/s")


def _measure_one(
    name: str, text: Path, folder: Path, arguments: argparse.Namespace
) -> tuple[list[dict[str, Any]], list[float]]:
    """Return a row for each engine on each machine, and the rates of sgemm in GFLOP/s."""
    run = RUNS[name]
    vocabulary = len(set(text.read_text(encoding="utf-8"))) + 1
    settings = {**run.settings, "data": str(text)}
    base = None if run.preset is None else read_settings(run.preset)
    config = resolve(settings, Facts(vocabulary=vocabulary), base=base)
    weights = folder / "weights.npz"
    model = GPT(vocabulary, config.model, random=rng(config.run.seed, "initialisation"))
    np.savez(weights, **model.parameters().state())  # pyright: ignore[reportArgumentType]
    request = {
        "data": str(text),
        "config": config.tables(),
        "weights": str(weights),
        "checkout": str(Path(arguments.nanochat).resolve()) if run.upstream else None,
    }
    engines = (turns.OURS, EAGER, COMPILED)
    commands = {
        turns.OURS: ["tinygrad_chat", "train", *_flags(run, text)],
        EAGER: ["bench.peers.torch_train", json.dumps({**request, "compiled": False, "out": str(folder)})],
        COMPILED: ["bench.peers.torch_train", json.dumps({**request, "compiled": True, "out": str(folder)})],
    }
    runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    machines, rates, bare = (QUIET, BUSY), [], []
    workers_of = {"sgemm": ("bench.sgemm",), "step": ("bench.train", json.dumps(request), str(vocabulary))}
    with turns.open_workers(workers_of) as workers:
        for key in turns.take_turns(list(itertools.product(engines, machines)), arguments.rounds, f"{NAME} {name}"):
            engine, machine = key
            with busy() if machine == BUSY else contextlib.nullcontext():
                runs.setdefault(key, []).append(_take(commands[engine], folder))
            _expect_agreement(name, engine, runs[key][-1], ours=runs[turns.OURS, QUIET][0])
            if key == (turns.OURS, QUIET):
                rates.append(workers["sgemm"].ask(None))
                bare += workers["step"].ask(STRETCHES_OF_A_TURN)
    rows = [
        _row(name, machine, engine, runs[engine, machine], runs[turns.OURS, machine])
        for machine in machines
        for engine in engines
    ]
    for row in rows:
        if row["engine"] == turns.OURS:
            stretches = [rate for run in runs[turns.OURS, row["machine"]] for rate in run["tokens_per_second"]]
            row["tokens_per_second"] = statistics.median(stretches)
            row["tokens_per_second_of_bare_steps"] = statistics.median(bare)
    return rows, rates


def _flags(run: Whole, text: Path) -> list[str]:
    """Return the flags of `tgc train`."""
    settings = {**run.settings, "data": text} | ({} if run.preset is None else {"preset": run.preset})
    return list(itertools.chain(*((f"--{name.replace('_', '-')}", str(value)) for name, value in settings.items())))


def _take(command: Sequence[str], folder: Path) -> dict[str, Any]:
    """Run a training to its end; return its seconds, and those at which each validation loss was printed."""
    out = Path(tempfile.mkdtemp(dir=folder))
    ours = command[0] == "tinygrad_chat"
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", *command, *(["--out", str(out / "run")] if ours else [])],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    curve = []
    for line in process.stdout:
        found = re.match(r"step=\d+ .*?\bval_loss=([\d.]+)", line)
        if found:
            curve.append((time.perf_counter() - began, float(found[1])))
    if process.wait():
        raise turns.BenchmarkError(
            f"{NAME}: {' '.join(command[:2])} ended with {process.returncode}; see above for why"
        )
    taken = {"seconds": time.perf_counter() - began, "curve": curve}
    if ours:
        record = RunFolder(out / "run")
        taken["step_seconds"] = record.read_outcome()["seconds"]
        timings = record.timings()
        taken["tokens_per_second"] = [line["tokens_per_second"] for line in timings if "tokens_per_second" in line]
    return taken


def _row(
    name: str, machine: str, engine: str, runs: Sequence[Mapping[str, Any]], ours: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    seconds = [run["seconds"] for run in runs]
    to_goal = [_seconds_to(GOAL, run["curve"]) for run in runs]
    reached = [each for each in to_goal if each is not None]
    row = {
        "configuration": name,
        "machine": machine,
        "engine": engine,
        "seconds": statistics.median(seconds),
        "this_over_ours": turns.ratio(seconds, to=[run["seconds"] for run in ours]),
        "seconds_to_goal": statistics.median(reached) if len(reached) == len(runs) else None,
        "val_loss": statistics.median(run["curve"][-1][1] for run in runs),
        "samples": seconds,
        "samples_to_goal": to_goal,
        "curves": [run["curve"] for run in runs],
    }
    if "step_seconds" in runs[0]:
        row["step_seconds"] = statistics.median(run["step_seconds"] for run in runs)
    return row


def _seconds_to(goal: float, curve: Sequence[tuple[float, float]]) -> float | None:
    """Return when a falling loss met the goal, in a straight line between two evaluations; None where it did not.

    >>> _seconds_to(2.0, [(1.0, 4.0), (3.0, 3.0), (7.0, 1.0)])
    5.0
    """
    for (before, above), (after, loss) in itertools.pairwise(curve):
        if loss <= goal:
            return before + (after - before) * (above - goal) / (above - loss)
    return None


def _expect_agreement(name: str, engine: str, run: Mapping[str, Any], *, ours: Mapping[str, Any]) -> None:
    """Raise BenchmarkError where a run ends far from ours: different things would be timed."""
    ends = [each["curve"][-1][1] for each in (run, ours)]
    if not abs(ends[0] - ends[1]) <= AGREEMENT:
        raise turns.BenchmarkError(
            f"{NAME} {name}: expected {engine} to end within {AGREEMENT} of our validation loss, "
            f"received {ends[0]:.4f} and {ends[1]:.4f}"
        )


def _draw(rows: Sequence[Mapping[str, Any]], arguments: argparse.Namespace) -> None:
    groups = list(dict.fromkeys((row["configuration"], row["machine"]) for row in rows))
    by_place = {(row["configuration"], row["machine"], row["engine"]): row for row in rows}
    bars = []
    for engine in (turns.OURS, EAGER, COMPILED):
        seconds = [by_place[*group, engine]["seconds"] for group in groups]
        bars.append(Bars(engine, seconds, [f"{each:.1f}" for each in seconds]))
    draw_bars(
        arguments.results,
        NAME,
        title="A whole training run",
        remark="seconds from start to end; busy: something else computes half of the time; ratios: to the better peer",
        groups=[", ".join(group) for group in groups],
        bars=bars,
        ratios=[times(min(by_place[*group, e]["this_over_ours"] for e in (EAGER, COMPILED))) for group in groups],
    )


def main(request: str, vocabulary: str) -> None:
    """Take training steps and nothing else, as many stretches as stdin asks for; answer with the speed of each.

    A stretch is as long as one that `tgc train` measures, the speeds are tokens per second.
    """
    from tinygrad_chat.training.build import build_for_training

    config: TrainingConfig = from_saved(json.loads(request)["config"], source="the request")
    train_step = build_for_training(config, int(vocabulary))
    shape = config.data.batch_size, config.model.context + 1
    number = 0

    def step() -> float:
        """Take a step; return its seconds without those of drawing the batch."""
        nonlocal number
        windows = np.random.default_rng(number).integers(int(vocabulary), size=shape)
        began = time.perf_counter()
        float(train_step((windows[:, :-1], windows[:, 1:]), number).loss)
        number += 1
        return time.perf_counter() - began

    def speeds(stretches: int) -> list[float]:
        steps = config.run.log_every
        return [steps * config.tokens_per_step / sum(step() for _ in range(steps)) for _ in range(stretches)]

    turns.serve(speeds)


if __name__ == "__main__":
    main(*sys.argv[1:])
