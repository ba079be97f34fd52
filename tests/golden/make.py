"""Write the golden curves anew: python -m tests.golden.make

Do so only where a change of numbers is meant, and say why in the commit.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from tinygrad_chat.config.resolve import resolve
from tinygrad_chat.training.events import Logged
from tinygrad_chat.training.loop import train
from tinygrad_chat.training.run import start_run

FOLDER = Path(__file__).parent
CURVES = FOLDER / "curves.json"
SETTINGS: dict[str, Any] = {
    "width": 8,
    "context": 8,
    "batch_size": 2,
    "steps": 10,
    "warmup": 3,
    "lr": 0.01,
    "log_every": 1,
    "eval_every": 10,
    "eval_tokens": 32,
}
BLOCKS = {"layers": 1, "heads": 2}
KINDS = [(mode, model) for mode in ("tensor", "scalar") for model in ("bigram", "mini-gpt")]


def losses(mode: str, model: str) -> list[float]:
    """The training losses of the first ten steps."""
    chosen = {"mode": mode, "model": model, "data": str(FOLDER / "text.txt"), "backend": "numpy"}
    settings = {**settings_of(model), **chosen}
    with tempfile.TemporaryDirectory() as folder:
        run = start_run(resolve(settings), Path(folder) / "run")
        records = [event.record for event in train(run) if isinstance(event, Logged)]
    return [record["loss"] for record in records if "loss" in record]


def settings_of(model: str) -> dict[str, Any]:
    """The settings of a model; a bigram has no blocks."""
    return SETTINGS if model == "bigram" else {**BLOCKS, **SETTINGS}


def command(mode: str, model: str) -> str:
    """The same run from the command line."""
    flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in settings_of(model).items())
    return f"tgc train --backend numpy --mode {mode} --model {model} --data tests/golden/text.txt {flags}"


if __name__ == "__main__":
    curves = {
        f"{mode} {model}": {"command": command(mode, model), "losses": losses(mode, model)} for mode, model in KINDS
    }
    CURVES.write_text(json.dumps(curves, indent=1) + "\n", encoding="utf-8")
