"""`tgc` as a function, and flags of a run small enough to train in a blink."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tinygrad_chat.cli.app import run
from tinygrad_chat.cli.streams import escaped_streams

_TINY = [
    *("--width", "8", "--context", "8", "--batch-size", "2"),
    *("--steps", "4", "--eval-every", "2", "--eval-tokens", "99", "--log-every", "1"),
]
TINY_BIGRAM = [*_TINY, "--model", "bigram"]
TINY = [*_TINY, "--layers", "1", "--heads", "2"]

Tgc = Callable[..., tuple[int, str, str]]


@pytest.fixture
def tgc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tgc:
    """Run a command in an empty folder; return its exit code and what it wrote to stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        with escaped_streams():
            code = run(arguments)
        out, err = capsys.readouterr()
        return code, out, err

    return call
