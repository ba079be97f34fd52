"""Training takes no more memory the longer it goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.survival import TEXT, watch_memory


@pytest.mark.timeout(60)
def test_a_thousand_steps_and_a_hundred_evaluations_take_no_more_memory(tmp_path: Path):
    """`python -m bench survival` takes 20,000 steps and 2,000 evaluations."""
    (tmp_path / "text.txt").write_text(TEXT)
    seen = watch_memory(tmp_path, 1000)
    assert (seen["steps"], seen["evaluations"]) == (1000, 101)
    assert len(seen["curve"]) > 10
    assert seen["growth"] < 0.02
