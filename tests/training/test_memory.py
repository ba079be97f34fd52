"""Training takes no more memory the longer it goes on."""

from __future__ import annotations

from pathlib import Path

from bench.survival import TEXT, watch_memory


def test_steps_and_evaluations_take_no_more_memory(tmp_path: Path):
    """`python -m bench survival` takes 20,000 steps and 2,000 evaluations."""
    (tmp_path / "text.txt").write_text(TEXT)
    seen = watch_memory(tmp_path, 300)
    assert (seen["steps"], seen["evaluations"]) == (300, 31)
    assert len(seen["curve"]) > 10
    assert seen["growth"] < 0.02
