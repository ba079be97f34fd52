"""What must hold before anything is timed, and what a mistake in the call is told."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import pytest

from bench import turns
from bench.__main__ import main
from bench.record import RESULTS
from tinygrad_chat.errors import UsageError

TOLERANCES = {turns.OURS: 1e-9, "peer": 1e-3}


def test_losses_that_agree_may_be_timed():
    turns.expect_agreement("step", {turns.OURS: [3.0, 2.0], "peer": [3.001, 2.001]}, TOLERANCES)


@pytest.mark.parametrize("theirs", [[3.0, 2.01], [3.0, math.nan], [math.nan, 2.0]])
def test_losses_that_do_not_agree_stop_the_measurement(theirs: list[float]):
    with pytest.raises(turns.BenchmarkError, match="nothing was timed"):
        turns.expect_agreement("step", {turns.OURS: [3.0, 2.0], "peer": theirs}, TOLERANCES)


def test_our_own_losses_must_be_numbers():
    with pytest.raises(turns.BenchmarkError, match="nothing was timed"):
        turns.expect_agreement("step", {turns.OURS: [3.0, math.nan], "peer": [3.0, 2.0]}, TOLERANCES)


def test_every_name_has_a_turn_in_every_round_and_each_is_first_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(turns, "SETTLING", 0)
    order = list(turns.take_turns(["a", "b", "c"], 3, "title"))
    assert order == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]


def test_a_ratio_is_the_median_of_those_within_a_round():
    assert turns.ratio([2.0, 30.0, 8.0], to=[1.0, 10.0, 2.0]) == 3.0


def test_a_part_of_the_configurations_does_not_replace_the_results_of_all(tmp_path: Path):
    arguments = argparse.Namespace(results=RESULTS, configurations=["a"], all_configurations=["a", "b"])
    with pytest.raises(UsageError, match="add --results FOLDER"):
        turns.expect_whole_results(arguments)
    arguments.results = tmp_path
    turns.expect_whole_results(arguments)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["step", "--rounds", "0"], "expected a whole number of at least 1, received '0'"),
        (["step", "--results", "/dev/null/nowhere"], "expected a folder that can be made"),
        (["step", "--configurations", "micro"], "bench: --configurations: a part of them"),
        (["nonsense"], "invalid choice"),
    ],
)
def test_a_mistake_in_the_call_is_told_before_anything_is_measured(
    arguments: list[str], line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("sys.argv", ["bench", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert line in capsys.readouterr().err
