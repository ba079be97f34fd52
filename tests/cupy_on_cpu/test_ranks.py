"""Ranks with a GPU each, by CuPy's binding of NCCL: `python -m tests.cupy_on_cpu pytest -m gpu tests/cupy_on_cpu`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

if "CUPY_ON_CPU_KERNELS" not in os.environ:
    pytest.skip("CuPy does not run on the CPU here", allow_module_level=True)

pytestmark = pytest.mark.gpu

TINY = {
    "backend": "cupy",
    "dtype": "float32",
    "layers": 1,
    "width": 16,
    "heads": 2,
    "context": 16,
    "batch-size": 4,
    "steps": 4,
    "tokenizer": "bytes",
}


def losses(ranks: int, text: Path, out: Path, **settings: str) -> list[float]:
    """Train, and return the losses that the run wrote down."""
    options = {**TINY, **settings, "data": text, "out": out, "ranks": ranks}
    command = [sys.executable, "-m", "tinygrad_chat", "train", "--no-autotune"]
    command += [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [row["val_loss"] for row in rows if "val_loss" in row]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_two_gpus_train_as_one(text: Path, tmp_path: Path, optimizer: str):
    one, two = (losses(ranks, text, tmp_path / str(ranks), optimizer=optimizer) for ranks in (1, 2))
    assert len(one) > 0
    assert two == pytest.approx(one, rel=1e-5)
