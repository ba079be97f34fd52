"""A report's page of what a run can do: scores, a picture of them, answers."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.reports.test_report import HOSTILE, report_of, words_of
from tinygrad_chat.reports.content import read_report
from tinygrad_chat.reports.scores import score_chart, scores_over_time
from tinygrad_chat.reports.writing import write_report
from tinygrad_chat.runs.scores import Example, TaskResult, add_results
from tinygrad_chat.training.loop import train
from tinygrad_chat.training.run import Run


@pytest.fixture
def finished(start: Callable[..., Run]) -> Run:
    run = start()
    for _ in train(run):
        pass
    return run


def result(task: str, solved: int, *examples: Example, chance: float = 0.0) -> TaskResult:
    return TaskResult(task, solved, 40, chance, 1, 2.0, examples)


def test_a_run_that_nobody_asked_anything_has_no_such_page(finished: Run):
    page, markdown = report_of(finished.folder)
    assert "What it can do" not in page
    assert "Problems solved" not in markdown


def test_scores_and_answers_of_the_newest_checkpoint_are_shown(finished: Run):
    scores = finished.folder.scores
    add_results(scores, 3, [result("sums", 10)])
    wrong, right = Example("What is 2+2?", "5", "4", solved=False), Example(HOSTILE, "yes", "yes", solved=True)
    add_results(scores, 6, [result("sums", 39, wrong), result("words", 25, right, chance=0.25)])
    write_report(finished.folder)
    page, markdown = report_of(finished.folder)
    for text in (words_of(page), markdown):
        assert "97.5 ± 3.3 %" in text
        assert "62.5 ± 7.5 %" in text
        assert "0.500" in text
        assert "0.738" in text  # the mean of 0.975 and 0.5, which is the score
        assert "What is 2+2?" in text
        assert "25.0" not in text
    assert "<script>alert" not in page
    assert re.findall(r'<svg[^>]*aria-label="(Problems solved[^"]*)"', page) == [
        *["Problems solved at step 6"] * 2,
        *["Problems solved, %"] * 2,
    ]


def test_a_picture_has_each_score_with_its_interval_on_a_scale_of_all(finished: Run):
    add_results(finished.folder.scores, 6, [result("sums", 20)])
    chart = score_chart(read_report(finished.folder))
    [row] = chart.rows
    assert (row.name, row.mean, chart.bounds) == ("sums", 50.0, (0.0, 100.0))
    assert row.half_width == pytest.approx(100 * 1.96 * (0.25 / 42) ** 0.5)


def test_curves_are_of_tasks_that_several_checkpoints_were_asked(finished: Run):
    for step, solved in ((3, 10), (6, 20)):
        add_results(finished.folder.scores, step, [result("sums", solved)])
    add_results(finished.folder.scores, 6, [result("words", 30)])
    [curve] = scores_over_time(read_report(finished.folder)).series
    assert (curve.name, curve.points) == ("sums", [(3, 25.0), (6, 50.0)])


def test_scores_that_cannot_be_read_are_told_of(finished: Run):
    finished.folder.scores.write_text("[{}]")
    write_report(finished.folder)
    assert "left out here: evaluation.json" in words_of(report_of(finished.folder)[0])
