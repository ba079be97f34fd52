"""How far rewards raise the score of a model that was taught for a short while, over three seeds.

A model with the shape of the default chat reads the tutor's conversations until it solves some problems of a task. From
there it goes on by `--objective grpo`: each seed has a model of its own, and tries other problems. Told are two scores
on held-out problems, before, on the way and after: the mean reward of answers that are drawn at temperature 1, as
nanochat scores (pass@1), which is what is made larger; and the fraction that is solved by the likeliest tokens, as
`tgc eval` scores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tinygrad_chat
from bench.chart import Curve, Panel, draw_curves
from bench.record import RESULTS, write_result
from tinygrad_chat.cli.display import format_record
from tinygrad_chat.config.files import read_settings
from tinygrad_chat.training.events import Evaluated, Event, Logged
from tinygrad_chat.training.facts import resolve_with_facts
from tinygrad_chat.training.loop import train
from tinygrad_chat.training.run import start_run

NAME = "reinforcement"
TRIED = {
    "objective": "grpo",
    "group_size": 8,
    "max_new_tokens": 48,
    "optimizer": "sgd",
    "momentum": 0.0,
    "clip": 0.1,
    "threads": 1,
}
"""Seven eighths of a step's gradient are chance. SGD moves as far as the rest of it goes, while Muon and AdamW make all
of it equally long (docs/log.md)."""
SAMPLES = 2  # answers to each held-out problem
EVALUATIONS = 4  # beside the first


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", default="sums", help="what the models try (sums)")
    parser.add_argument("--taught", type=int, default=300, help="steps on conversations (300)")
    parser.add_argument("--tried", type=int, default=64, help="steps by rewards (64)")
    parser.add_argument("--batch-size", type=int, default=256, help="answers in each of the latter (256)")
    parser.add_argument("--lr", type=float, default=0.15, help="their learning rate (0.15)")
    parser.add_argument("--problems", type=int, default=200, help="held-out problems that are asked (200)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--keep", type=Path, help="work in this folder, and take what is finished there")


def measure(arguments: argparse.Namespace) -> None:
    runs = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        for seed in arguments.seeds:
            told = folder / f"seed-{seed}.json"
            if not told.exists():
                told.write_text(json.dumps(one_seed(folder, seed, arguments)))
            runs.append(json.loads(told.read_text()))
            for name in ("sampled", "likeliest"):
                print(f"seed {seed}, {name}: {runs[-1][name][0]:.3f} before, {runs[-1][name][-1]:.3f} after")
    names = ("task", "taught", "tried", "batch_size", "lr", "problems")
    settings = {name: getattr(arguments, name) for name in names}
    measured = {**settings, "samples": SAMPLES, "options": TRIED, "runs": runs}
    print(f"written: {write_result(NAME, f'python -m bench {NAME}', measured)}")
    _draw(RESULTS, runs, arguments)


def _draw(folder: Path, runs: Sequence[dict[str, Any]], arguments: argparse.Namespace) -> None:
    """Draw, over the steps, both scores of each seed, and the mean of all."""
    titles = {"sampled": "answers drawn at temperature 1", "likeliest": "answers by the likeliest tokens"}
    panels = []
    for name, title in titles.items():
        steps = runs[0]["steps"]
        means = [statistics.fmean(scores) for scores in zip(*(run[name] for run in runs), strict=True)]
        curves = [Curve("mean", f"{len(runs)} seeds", steps, means)]
        curves += [Curve("seed", f"{run['seed']}", steps, run[name]) for run in runs]
        panels.append(Panel(f"steps by rewards: {title}", curves))
    draw_curves(
        folder,
        NAME,
        title=f"Held-out problems of {arguments.task} that are solved",
        remark=f"of {arguments.problems}, after steps in which a model learned from its own answers alone",
        panels=panels,
        logarithmic=False,
    )


def one_seed(folder: Path, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Teach a model and let it try; return its scores on the way, and the mean reward of each step."""
    taught = folder / f"taught-{seed}"
    if not taught.exists():
        settings = {"data": "tutor", "steps": arguments.taught, "eval_tokens": 20_000, "seed": seed, "threads": 1}
        tinygrad_chat.train(out=taught, watch=tell, **{**read_settings("chat"), **settings})
    tried = {
        "start_from": str(taught),
        "task": arguments.task,
        "steps": arguments.tried,
        "batch_size": arguments.batch_size,
        "lr": arguments.lr,
        "eval_problems": arguments.problems,
        "eval_every": max(arguments.tried // EVALUATIONS, 1),
        "seed": seed,
    }
    config, data = resolve_with_facts({**TRIED, **tried})
    run = start_run(config, folder / f"tried-{seed}", data=data)
    assert run.reinforcement
    records, sampled, begun = [], [], time.perf_counter()
    for event in train(run):
        tell(event)
        if isinstance(event, Evaluated):
            sampled.append(run.reinforcement.sampled_score(run.train_step, SAMPLES))
            print(f"drawn at temperature 1: {sampled[-1]:.3f}", flush=True)
        if isinstance(event, Logged):
            records.append(event.record)
    scored = [record for record in records if "val_reward" in record]
    return {
        "seed": seed,
        "steps": [record["step"] for record in scored],
        "sampled": sampled,
        "likeliest": [record["val_reward"] for record in scored],
        "rewards": [record["reward"] for record in records if "reward" in record],
        "seconds": time.perf_counter() - begun,
    }


def tell(event: Event) -> None:
    """Print a line of the log."""
    if isinstance(event, Logged):
        print(format_record(event.record), flush=True)
