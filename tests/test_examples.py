"""The lessons run, and each asserts what it teaches."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.profile("ci")
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_a_lesson_runs_without_a_warning_and_says_something(example: Path):
    done = subprocess.run([sys.executable, "-W", "error", str(example)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_there_are_lessons():
    assert len(EXAMPLES) >= 4
