"""Comparisons: losses at equal tokens and equal time, in a unit that all runs share."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.drawing.graphs import SVG
from tests.tiny import TINY
from tinygrad_chat.config.resolve import resolve
from tinygrad_chat.errors import UsageError
from tinygrad_chat.reports.comparison import SMOOTHING, Curve, compare_runs, smooth
from tinygrad_chat.reports.comparison_plot import comparison_charts, write_comparison_plot
from tinygrad_chat.runs.folder import RunFolder

BATCH = TINY["batch_size"] * TINY["context"]


def made_up(path: Path, losses: dict[int, float], *, seconds_a_step: float = 1.0, **settings: Any) -> Path:
    """Write the folder of a run that was evaluated at some steps, its training loss 0.5 below."""
    folder = RunFolder(path)
    folder.create()
    folder.write_config(resolve({**TINY, **settings}))
    for step, loss in losses.items():
        record = {"step": step, "loss": loss - 0.5, "val_loss": loss, "val_bpb": 2 * loss}
        folder.append(record, {"step": step, "seconds": step * seconds_a_step})
    folder.write_outcome("finished", step=max(losses), seconds=max(losses) * seconds_a_step)
    return path


@pytest.fixture
def pair(tmp_path: Path) -> dict[str, Path]:
    """Runs of 10 and of 8 steps; the second takes twice as long for each."""
    return {
        "long": made_up(tmp_path / "long", {0: 4.0, 5: 3.0, 10: 2.0}),
        "short": made_up(tmp_path / "short", {0: 4.0, 8: 1.0}, seconds_a_step=2.0, lr=0.01),
    }


def test_losses_at_equal_tokens_lie_between_the_evaluations_beside_them(pair: dict[str, Path]):
    comparison = compare_runs(pair)
    tokens = comparison.reached_by_all("tokens")
    assert tokens == 8 * BATCH
    assert [run.at("tokens", tokens) for run in comparison.runs] == pytest.approx([2.4, 1.0])
    assert [run.best for run in comparison.runs] == [2.0, 1.0]


def test_losses_at_equal_time_count_seconds_of_training(pair: dict[str, Path]):
    comparison = compare_runs(pair)
    seconds = comparison.reached_by_all("seconds")
    assert seconds == 10.0
    assert [run.at("seconds", seconds) for run in comparison.runs] == pytest.approx([2.0, 4.0 - 3.0 * 5 / 8])


def test_settings_that_differ_are_named_and_no_others(pair: dict[str, Path]):
    assert compare_runs(pair).differing_settings() == {"lr": [0.004, 0.01]}


def test_a_setting_that_plays_no_part_in_a_run_has_no_value_there(tmp_path: Path):
    learned = made_up(tmp_path / "bpe", {0: 4.0, 6: 3.0}, tokenizer="bpe", vocabulary=500)
    comparison = compare_runs(
        {"bpe": learned, "plain": made_up(tmp_path / "plain", {0: 4.0, 6: 3.0}, tokenizer="characters")}
    )
    assert comparison.differing_settings() == {
        "tokenizer": ["bpe", "characters"],
        "pre_tokenizer": ["nanochat", None],
        "vocabulary": [500, None],
    }


def test_vocabularies_of_two_sizes_are_compared_in_bits_per_byte(tmp_path: Path):
    paths = {
        str(size): made_up(tmp_path / str(size), {0: 4.0, 6: 3.0}, tokenizer="bpe", vocabulary=size)
        for size in (300, 500)
    }
    assert compare_runs(paths).unit == "bits/byte"


@pytest.mark.parametrize("settings", [{"tokenizer": "bytes"}, {"data": "names"}, {"text_field": "body"}])
def test_runs_on_other_tokens_or_texts_are_compared_in_bits_per_byte(
    pair: dict[str, Path], tmp_path: Path, settings: dict[str, Any]
):
    assert compare_runs(pair).unit == "val_loss"
    comparison = compare_runs({**pair, "other": made_up(tmp_path / "other", {0: 4.0, 6: 3.0}, **settings)})
    assert comparison.unit == "bits/byte"
    assert comparison.runs[0].best == 4.0
    assert comparison.runs[0].training.losses.tolist() == pytest.approx([7.0, 5.0, 3.0])


def test_where_tokens_differ_runs_are_compared_after_equal_bytes_of_text(pair: dict[str, Path], tmp_path: Path):
    other = made_up(tmp_path / "other", {0: 4.0, 6: 3.0}, tokenizer="bytes")
    in_tokens, in_bytes = compare_runs(pair), compare_runs({**pair, "other": other})
    assert (in_tokens.axes, in_bytes.axes) == (("tokens", "seconds"), ("bytes", "seconds"))
    for before, after in zip(in_tokens.runs, in_bytes.runs, strict=False):
        bytes_per_token = before.best / (after.best * math.log(2))
        assert after.validation.read == pytest.approx(before.validation.read * bytes_per_token)


def test_a_line_of_the_log_that_lost_its_time_stands_between_its_neighbours(pair: dict[str, Path]):
    folder = RunFolder(pair["long"])
    lines = folder.timing.read_text().splitlines()
    folder.timing.write_text("\n".join([lines[0], lines[2]]) + "\n")
    assert compare_runs(pair).runs[0].validation.seconds.tolist() == [0.0, 5.0, 10.0]


def test_smoothing_keeps_a_straight_line_straight_and_calms_noise():
    line = np.linspace(4.0, 1.0, 200)
    inner = slice(len(line) // SMOOTHING, -(len(line) // SMOOTHING))
    assert smooth(line)[inner] == pytest.approx(line[inner])
    noise = np.random.default_rng(1).normal(size=200)
    assert smooth(noise).std() < 0.5 * noise.std()
    assert smooth(np.array([])).size == 0


def test_a_plot_begins_where_the_curve_comes_below_its_top():
    curve = Curve(np.array([0.0, 10.0, 20.0]), np.array([0.0, 1.0, 2.0]), np.array([5.0, 3.0, 1.0]))
    assert curve.below(4.0, "tokens") == ([5.0, 10.0, 20.0], [4.0, 3.0, 1.0])
    assert curve.below(9.0, "seconds") == ([0.0, 1.0, 2.0], [5.0, 3.0, 1.0])
    assert curve.below(0.5, "tokens") == ([], [])


def test_the_steep_beginning_is_left_out_of_plots_and_nothing_else(tmp_path: Path):
    losses = {step: 2.0 + 8.0 * 0.5**step for step in range(101)}
    comparison = compare_runs({name: made_up(tmp_path / name, losses, steps=100) for name in "ab"})
    bottom, top = comparison.losses_shown()
    assert bottom < 1.5
    assert 2.0 < top < 10.0


@pytest.mark.profile("ci")
def test_the_plot_is_written_as_svg_and_where_it_is_asked_for_as_png(pair: dict[str, Path], tmp_path: Path):
    (svg,) = write_comparison_plot(compare_runs(pair), tmp_path)
    root = ElementTree.fromstring(svg.read_text(encoding="utf-8"))
    names = [group.attrib["data-name"] for group in root.iter(f"{SVG}g") if group.attrib.get("data-name")]
    assert names == ["long", "short"] * 2
    pytest.importorskip("matplotlib")
    _, png = write_comparison_plot(compare_runs(pair), tmp_path, png=True)
    assert png.read_bytes().startswith(b"\x89PNG")


def test_the_curves_are_those_of_the_runs_and_only_evaluations_are_marked(pair: dict[str, Path]):
    over_tokens, over_seconds = comparison_charts(compare_runs(pair))
    marked = {series.name: series.points for series in over_tokens.series if series.style == "marked"}
    assert marked == {"long": [(5 * BATCH, 3.0), (10 * BATCH, 2.0)], "short": [(8 * BATCH, 1.0)]}
    (mark,) = over_seconds.marks
    assert mark.x == 10.0
    tops = {series.points[0][1] for series in over_tokens.series if series.style == "line"}
    assert tops == {compare_runs(pair).losses_shown()[1]}


def test_what_cannot_be_compared_is_one_line_that_names_the_run(pair: dict[str, Path], tmp_path: Path):
    untrained = RunFolder(tmp_path / "untrained")
    untrained.create()
    untrained.write_config(resolve(TINY))
    timeless = made_up(tmp_path / "timeless", {0: 4.0})
    (timeless / "timing.jsonl").write_text(json.dumps({"step": 0}))
    mistakes = {
        "expected at least two runs, received 1": {"long": pair["long"]},
        "untrained: has no evaluation yet; leave it out": {"long": pair["long"], "untrained": untrained.path},
        "twin: is the same run as long": {**pair, "twin": tmp_path / "short" / ".." / "long"},
        "nothing: has no config.toml": {"long": pair["long"], "nothing": tmp_path / "nothing"},
        "timeless: timing.jsonl has no complete line": {"timeless": timeless, "long": pair["long"]},
    }
    for message, paths in mistakes.items():
        with pytest.raises(UsageError, match=message) as caught:
            compare_runs(paths)
        assert "\n" not in str(caught.value)
    others = {"untrained": untrained.path, "nothing": tmp_path / "nothing", "timeless": timeless}
    comparison = compare_runs({**others, **pair})
    assert [run.name for run in comparison.runs] == ["long", "short"]
    assert comparison.left_out == {
        "untrained": "has no evaluation yet",
        "nothing": "has no config.toml",
        "timeless": "timing.jsonl has no complete line",
    }
