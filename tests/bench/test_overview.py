"""The chart of all results: the best peer in each row, and the rows where we lose."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.chart import draw_ratios
from bench.overview import PEERS, _worst, ratios
from bench.record import RESULTS


def test_a_row_takes_the_peer_that_does_best_and_no_other_precision():
    rows = [
        {"configuration": "a", "engine": "tinygrad_chat", "ours_over_this": 1.0},
        {"configuration": "a", "engine": "torch eager", "ours_over_this": 3.0},
        {"configuration": "a", "engine": "jax jit", "ours_over_this": 0.5},
        {"configuration": "a", "engine": "torch bfloat16", "ours_over_this": 0.1},
    ]
    assert _worst(rows, "configuration") == {"a": 0.5}
    assert "torch bfloat16" not in PEERS


def test_every_heading_has_rows_and_every_ratio_is_positive():
    for rows in ratios(RESULTS).values():
        assert rows
        assert all(ratio > 0 for ratio in rows.values())


@pytest.mark.profile("ci")
def test_equal_ratios_give_equal_files(tmp_path: Path):
    pytest.importorskip("matplotlib")
    groups = {"speed": {"one": 2.0, "other": 0.5}}
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        draw_ratios(folder, "chart", title="Ratios", remark="of a test", groups=groups)
    first, second = ((tmp_path / name / "chart.svg").read_bytes() for name in "ab")
    assert first == second
    draw_ratios(
        tmp_path / "b", "chart", title="Ratios", remark="of a test", groups={"speed": {"one": 2.0, "other": 0.4}}
    )
    assert (tmp_path / "b" / "chart.svg").read_bytes() != first
