"""A run small enough to train in a blink."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tinygrad_chat.training import loop
from tinygrad_chat.training.config import TrainingConfig, resolve_config
from tinygrad_chat.training.run import Run, start_run

TINY: dict[str, Any] = {
    "layers": 1,
    "heads": 2,
    "width": 8,
    "context": 8,
    "batch_size": 3,
    "steps": 6,
    "eval_every": 3,
    "log_every": 1,
    "warmup": 2,
}


@pytest.fixture(autouse=True)
def short_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few tests look at the text of an evaluation."""
    monkeypatch.setattr(loop, "SAMPLE_LENGTH", 12)


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "text.txt"
    path.write_bytes(b"The quick brown fox jumps over the lazy dog.\n" * 20)
    return path


@pytest.fixture
def tiny(text: Path) -> Callable[..., TrainingConfig]:
    """Make a configuration of a tiny model on a short text, with settings of one's own."""
    return lambda **settings: resolve_config({**TINY, "data": str(text), **settings})


@pytest.fixture
def start(tiny: Callable[..., TrainingConfig], tmp_path: Path) -> Callable[..., Run]:
    """Start such a run below a temporary folder."""
    return lambda name="run", **settings: start_run(tiny(**settings), tmp_path / name)
