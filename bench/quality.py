"""Validation losses of known configurations.

nanoGPT's README gives 1.88 for its shakespeare_char example on a CPU: 4 layers, 4 heads, width 128, context 64,
batch 12, 2,000 steps, dropout 0. Ours trains the shipped preset `shakespeare-cpu` through the same code as `tgc train`,
once with its own learning rate and once with nanoGPT's, and `best-small`, our best recipe at the same budget: as many
tokens, and parameters within a tenth. All are evaluated on the whole held-out tenth instead of random batches from it.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from bench.record import write_result
from tinygrad_chat.config.files import read_settings
from tinygrad_chat.config.resolve import resolve
from tinygrad_chat.training.events import Logged
from tinygrad_chat.training.loop import train
from tinygrad_chat.training.run import start_run

NAME = "quality"
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "preset best-small": ("best-small", {}),
    "preset shakespeare-cpu": ("shakespeare-cpu", {}),
    "nanoGPT's learning rate": ("shakespeare-cpu", {"lr": 1e-3, "min_lr": 1e-4, "lr_schedule": "cosine"}),
}
"""name -> preset, and what differs from it"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", default="shakespeare", help="the tiny Shakespeare text, if it is at hand as a file")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=2000)


def measure(arguments: argparse.Namespace) -> None:
    common = {"data": arguments.data, "steps": arguments.steps, "eval_tokens": 0}
    rows = [
        {"settings": name, **_train({**common, **settings, "seed": seed}, preset)}
        for name, (preset, settings) in RUNS.items()
        for seed in arguments.seeds
    ]
    for row in rows:
        print(f"{row['settings']}, seed {row['seed']}: best val_loss {row['best_val_loss']:.4f}")
    command = f"python -m bench quality --seeds {' '.join(map(str, arguments.seeds))} --steps {arguments.steps}"
    summary = {"steps": arguments.steps, "nanogpt_readme": 1.88, "rows": rows}
    print(f"written: {write_result('quality', command, summary)}")


def _train(settings: dict[str, Any], preset: str) -> dict[str, Any]:
    config = resolve(settings, base=read_settings(preset))
    curve = []
    with tempfile.TemporaryDirectory() as folder:
        run = start_run(config, Path(folder) / "run")
        for event in train(run):
            if isinstance(event, Logged) and "val_loss" in event.record:
                curve.append(event.record)
                print(
                    f"seed {config.run.seed} step {event.record['step']:>5} val_loss {event.record['val_loss']:.4f}",
                    flush=True,
                )
    return {
        "seed": config.run.seed,
        "parameters": run.model.parameters().size,
        "lr": config.optimizer.lr,
        "lr_schedule": config.schedule.lr_schedule,
        "best_val_loss": run.progress.best_loss,
        "best_step": run.progress.best_step,
        "seconds_of_training": run.progress.seconds,
        "data_sha256": run.dataset.sha256,
        "curve": curve,
    }
