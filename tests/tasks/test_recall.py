"""Tasks over what is held out: right answers solve them, others do not."""

import pytest

from tinygrad_chat.tasks import TASKS, open_task
from tinygrad_chat.text.embedded.questions import REFUSAL

WORD_FOR_WORD = ("python", "reverse", "turns")


@pytest.mark.parametrize("name", ["python", "reverse", "known", "unknown", "turns"])
def test_the_right_answer_solves_a_problem(name):
    task = open_task(name)
    problems = list(task.problems(40, seed=3))
    assert name in TASKS
    assert task.name == name
    assert len(problems) == 40
    assert all(problem.is_solved_by(f" {problem.answer}\n") for problem in problems)
    assert not any(problem.is_solved_by("") for problem in problems)
    again = [problem.question for problem in open_task(name).problems(40, seed=3)]
    assert again == [problem.question for problem in problems]
    assert again != [problem.question for problem in task.problems(40, seed=4)]


@pytest.mark.parametrize("name", WORD_FOR_WORD)
def test_another_answer_does_not(name):
    for problem in open_task(name).problems(20, seed=0):
        assert not problem.is_solved_by(problem.answer[:-2])
        assert not problem.is_solved_by(problem.answer + " And more.")


def test_a_refusal_is_right_where_nothing_is_known_and_wrong_where_something_is():
    assert all(problem.is_solved_by(REFUSAL) for problem in open_task("unknown").problems(20, seed=0))
    assert not any(problem.is_solved_by("Return a list.") for problem in open_task("unknown").problems(20, seed=0))
    assert all(problem.is_solved_by("Return a list.") for problem in open_task("known").problems(20, seed=0))
    assert not any(problem.is_solved_by(REFUSAL) for problem in open_task("known").problems(20, seed=0))


def test_a_second_question_stands_after_a_first():
    lengths = {len(problem.question.messages) for problem in open_task("turns").problems(60, seed=0)}
    assert lengths == {3, 5}
