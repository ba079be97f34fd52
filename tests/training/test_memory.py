"""Training takes no more memory the longer it goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(60)
def test_a_thousand_steps_and_a_hundred_evaluations_take_no_more_memory(tmp_path: Path):
    """`python -m bench survival` takes 20,000 steps and 2,000 evaluations."""
    (tmp_path / "text.txt").write_text("The quick brown fox jumps over the lazy dog.\n" * 40)
    command = [sys.executable, "-m", "bench.survival", str(tmp_path), "1000"]
    seen = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout)
    assert (seen["steps"], seen["evaluations"]) == (1000, 101)
    assert seen["growth"] < 0.02
