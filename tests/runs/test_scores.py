"""evaluation.json: what is kept of how a run did in tasks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinygrad_chat.errors import FormatError
from tinygrad_chat.runs.scores import Example, Scores, TaskResult, add_results, mean_centred, read_scores


def result(task: str, solved: int = 3, *, chance: float = 0.0) -> TaskResult:
    return TaskResult(task, solved, 4, chance, 1, 0.5, (Example("a?", "b", "c", solved=False),))


def test_results_are_kept_by_step_and_task_the_last_of_each(tmp_path: Path):
    path = tmp_path / "evaluation.json"
    assert read_scores(path) == []
    add_results(path, 20, [result("sums"), result("words", 1)])
    add_results(path, 10, [result("sums", 0)])
    add_results(path, 20, [result("sums", 4)])
    assert read_scores(path) == [
        Scores(10, (result("sums", 0),)),
        Scores(20, (result("sums", 4), result("words", 1))),
    ]


@pytest.mark.parametrize("content", ["{", "[]x", '[{"step": -1, "results": []}]', '[{"step": 1}]'])
def test_what_is_damaged_is_refused_and_stays(tmp_path: Path, content: str):
    path = tmp_path / "evaluation.json"
    path.write_text(content)
    with pytest.raises(FormatError, match=r"evaluation\.json"):
        add_results(path, 1, [result("sums")])
    assert path.read_text() == content


def test_a_centred_score_is_0_for_guessing_and_1_for_all():
    assert result("a", 1, chance=0.25).centred == 0
    assert result("a", 4, chance=0.25).centred == 1
    assert result("a", 0, chance=0.5).centred == -1
    assert mean_centred([result("a", 1, chance=0.25), result("b", 3)]) == pytest.approx(0.375)


def test_nothing_solved_of_few_is_not_certain():
    assert result("a", 0).error > 0.1
    many = TaskResult("a", 500, 1000, 0.0, 1, 1.0)
    assert many.error == pytest.approx((0.25 / 1000) ** 0.5, rel=0.01)
