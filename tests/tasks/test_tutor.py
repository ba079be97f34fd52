"""Tasks of the tutor: the right answer solves them, however it is said, and a wrong one does not."""

from __future__ import annotations

import pytest

from tinygrad_chat.tasks.tutor import Letters, Sums, Units, Words


@pytest.mark.parametrize("task", [Sums(), Units(), Words(), Letters()])
def test_as_many_problems_as_are_asked_for(task):
    problems = list(task.problems(60, seed=0))
    assert len(problems) == 60
    assert len({problem.question for problem in problems}) > 55
    assert all(problem.is_solved_by(f" {problem.answer}\n") for problem in problems)
    assert not any(problem.is_solved_by("") for problem in problems)


@pytest.mark.parametrize("task", [Sums(), Units()])
def test_the_last_number_counts(task):
    for problem in task.problems(30, seed=0):
        assert not problem.is_solved_by(problem.answer + " Or 12345.678?")
        assert not problem.is_solved_by("I do not know.")


def test_a_word_is_spelled_wholly():
    for problem in Words().problems(30, seed=0):
        assert not problem.is_solved_by(problem.answer[:-2])
        assert not problem.is_solved_by(problem.answer.replace("-", ""))


@pytest.mark.parametrize("task", [Sums(), Units(), Words(), Letters()])
def test_practice_is_apart_from_problems(task):
    asked = {problem.question for problem in task.problems(300, seed=0)}
    practised = list(task.practice(300, seed=0))
    assert len(practised) == 300
    assert not asked & {problem.question for problem in practised}
    assert all(problem.is_solved_by(problem.answer) for problem in practised)
    assert [each.question for each in task.practice(9, seed=1)] != [each.question for each in practised[:9]]


def test_letters_ask_for_counts_and_for_words_turned_around():
    problems = list(Letters().problems(40, seed=0))
    assert any("-" in problem.answer for problem in problems)
    assert any("I count" in problem.answer for problem in problems)
    assert {len(problem.question.messages) for problem in problems} == {1, 3}
