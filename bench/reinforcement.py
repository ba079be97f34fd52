"""How far rewards raise the score of a model that was taught for a short while, over three seeds.

A model with the shape of the default chat reads the tutor's conversations until it is about half good at a task. From
there, once for each seed, it goes on by `--objective grpo`. Told are the fractions of held-out problems that it solves
before and after, and the mean reward of each step; which problems it tries and what it answers follow from the seed.
"""

from __future__ import annotations

import argparse
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
from tinygrad_chat.training.events import Event, Logged

NAME = "reinforcement"
TRIED = {"objective": "grpo", "batch_size": 256, "group_size": 8, "max_new_tokens": 48, "weight_decay": 0.0}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", default="spelling", help="what the model tries (spelling)")
    parser.add_argument("--taught", type=int, default=350, help="steps on conversations (350)")
    parser.add_argument("--tried", type=int, default=60, help="steps by rewards (60)")
    parser.add_argument("--lr", type=float, help="learning rate of the latter (that of --from)")
    parser.add_argument("--problems", type=int, default=300, help="held-out problems that are asked (300)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])


def measure(arguments: argparse.Namespace) -> None:
    preset = {**read_settings("chat"), "data": "tutor", "steps": arguments.taught, "eval_tokens": 20_000}
    runs = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tinygrad_chat.train(out=folder / "taught", watch=tell, **preset)
        for seed in arguments.seeds:
            runs.append({"seed": seed, **one_seed(folder, seed, arguments)})
            print(f"seed {seed}: {runs[-1]['before']:.3f} of held-out problems before, {runs[-1]['after']:.3f} after")
    settings = {name: getattr(arguments, name) for name in ("task", "taught", "tried", "lr", "problems")}
    print(f"written: {write_result(NAME, f'python -m bench {NAME}', {**settings, 'options': TRIED, 'runs': runs})}")
    _draw(RESULTS, runs, arguments)


def _draw(folder: Path, runs: Sequence[dict[str, Any]], arguments: argparse.Namespace) -> None:
    """Draw, over the steps, the fraction of held-out problems that each seed solves, and the mean of all."""
    steps = [min(number * _every(arguments), arguments.tried) for number in range(len(runs[0]["scores"]))]
    means = [statistics.fmean(scores) for scores in zip(*(run["scores"] for run in runs), strict=True)]
    curves = [Curve("mean", f"{len(runs)} seeds", steps, means)]
    curves += [Curve("seed", f"{run['seed']}", steps, run["scores"]) for run in runs]
    draw_curves(
        folder,
        NAME,
        title=f"Held-out problems of {arguments.task} that are solved",
        remark=f"of {arguments.problems}, after steps in which a model learned from its own answers alone",
        panels=[Panel("steps by rewards", curves)],
        logarithmic=False,
    )


def _every(arguments: argparse.Namespace) -> int:
    """Return from how many steps to how many it is evaluated."""
    return max(arguments.tried // 6, 1)


def one_seed(folder: Path, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Let the model that was taught try; return its scores before and after, and the mean reward of each step."""
    records: list[dict[str, Any]] = []

    def watch(event: Event) -> None:
        tell(event)
        if isinstance(event, Logged):
            records.append(event.record)

    tried = {"task": arguments.task, "steps": arguments.tried, "eval_every": _every(arguments)}
    begun = time.perf_counter()
    tinygrad_chat.train(
        start_from=folder / "taught",
        out=folder / f"tried-{seed}",
        watch=watch,
        **{**TRIED, **tried, "eval_problems": arguments.problems, "seed": seed, "log_every": 1},
        **({} if arguments.lr is None else {"lr": arguments.lr}),
    )
    scores = [record["val_reward"] for record in records if "val_reward" in record]
    rewards = [record["reward"] for record in records if "reward" in record]
    seconds = time.perf_counter() - begun
    return {"before": scores[0], "after": scores[-1], "scores": scores, "rewards": rewards, "seconds": seconds}


def tell(event: Event) -> None:
    """Print a line of the log."""
    if isinstance(event, Logged):
        print(format_record(event.record), flush=True)
