"""Tasks put to models whose every answer is known."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.models.table_model import certain, table_model
from tinygrad_chat.errors import ConfigError, UsageError
from tinygrad_chat.evaluation.answers import evaluate_task
from tinygrad_chat.inference.engine import Engine
from tinygrad_chat.tasks import Problem
from tinygrad_chat.text.conversations import Conversation
from tinygrad_chat.text.tokenizers import BPETokenizer
from tinygrad_chat.tools import calculate

TOKENIZER = BPETokenizer.from_merges([])
NAMES = ("assistant_start", "assistant_end", "python_start", "python_end", "output_end")
START, END, CALL, CALLED, OUTPUT_END = (TOKENIZER.special_tokens[f"<|{name}|>"] for name in NAMES)


class Asked:
    """Problems of a test's own."""

    name, about, chance = "asked", "what a test asks", 0.25

    def __init__(self, *problems: Problem) -> None:
        self.given = problems

    def problems(self, count: int, seed: int) -> Iterator[Problem]:
        yield from self.given


def engine_that_says(text: str, *, context: int = 64, tool: Any = None, after: dict[int, int] | None = None) -> Engine:
    """An engine whose answer to all is a text of different letters."""
    letters = TOKENIZER.encode(text).tolist()
    following = dict(zip([START, *letters], [*letters, END], strict=True)) | (after or {})
    model = table_model(certain(TOKENIZER.size, following), context=context)
    return Engine(model, TOKENIZER, rows=3, tool=tool)


def asks(question: str, answer: str, *choices: str) -> Problem:
    return Problem(Conversation.of(question), answer, lambda said: said == answer, choices)


def test_answers_are_checked_each_by_its_own_problem():
    right, wrong = asks("a?", "yes"), asks("b?", "no")
    result = evaluate_task(engine_that_says("yes"), Asked(right, wrong, right, right, right))
    assert (result.solved, result.count, result.accuracy) == (4, 5, 0.8)
    assert result.centred == pytest.approx((0.8 - 0.25) / 0.75)
    assert (result.examples[0].question, result.examples[0].answer, result.examples[0].expected) == ("b?", "yes", "no")
    assert [example.solved for example in result.examples] == [False, True, True]


def test_what_a_tool_was_asked_and_said_is_no_part_of_an_answer():
    # <call>1+2</call> 3 <result over> k
    steps = [START, CALL, *TOKENIZER.encode("1+2").tolist(), CALLED]
    after = {**dict(itertools.pairwise(steps)), OUTPUT_END: ord("k"), ord("k"): END}
    engine = engine_that_says("k", tool=calculate, after=after)
    assert evaluate_task(engine, Asked(asks("a?", "k"))).examples[0].answer == "k"


def test_a_question_without_room_is_not_solved_and_the_others_are():
    result = evaluate_task(engine_that_says("yes", context=10), Asked(asks("a" * 20, "yes"), asks("b?", "yes")))
    assert [(example.question, example.answer) for example in result.examples] == [("a" * 20, ""), ("b?", "yes")]


@pytest.mark.parametrize("likely", ["ab", "cdef"], ids=["short", "long"])
def test_a_choice_counts_by_its_mean_token_however_long_it_is(likely: str):
    logits = np.zeros((TOKENIZER.size, TOKENIZER.size))
    for before, after in zip([START, *TOKENIZER.encode(likely)[:-1]], TOKENIZER.encode(likely), strict=True):
        logits[before, after] = 1.5  # so little that four of them are less likely than two others
    engine = Engine(table_model(logits, context=64), TOKENIZER)
    result = evaluate_task(engine, Asked(asks("q?", "ab", "ab", "cdef"), asks("q?", "cdef", "cdef", "ab")))
    assert [example.answer for example in result.examples] == [likely, likely]


def test_choices_and_written_answers_keep_their_order():
    told: list[Any] = []
    problems = [asks("1?", "no", "no", "yes"), asks("2?", "yes"), asks("3?", "yes", "no", "yes")]
    result = evaluate_task(engine_that_says("yes"), Asked(*problems), progress=lambda *done: told.append(done))
    assert {example.question: example.answer for example in result.examples} == dict.fromkeys(("1?", "2?", "3?"), "yes")
    assert told[-1] == ("answering asked", 3, 3)


def test_a_choice_without_room_is_no_answer():
    result = evaluate_task(engine_that_says("yes", context=10), Asked(asks("q?", "yes", "yes", "no" * 9)))
    assert (result.solved, result.examples[0].answer) == (0, "")


def test_a_conversation_is_shown_with_who_speaks():
    chat = Conversation.of("I am Ida.", "Hello.", "Who am I?")
    result = evaluate_task(engine_that_says("Ida"), Asked(Problem(chat, "Ida", "Ida".__eq__)))
    assert result.examples[0].question == "user: I am Ida.\nassistant: Hello.\nuser: Who am I?"
    assert result.solved == 1


def test_at_most_so_many_problems_are_asked():
    assert evaluate_task(engine_that_says("yes"), Asked(*[asks("a?", "yes")] * 5), count=2).count == 2


def broken(said: str) -> bool:
    raise ZeroDivisionError("division\nby zero")


@pytest.mark.parametrize(
    ("problems", "message"),
    [
        ((), "--task asked: expected at least one problem, received none"),
        ((Problem(Conversation.of("a?"), "b", broken),), "--task asked: ZeroDivisionError: division by zero"),
        ((None,), "--task asked: expected each to be a Problem, received None"),
    ],
)
def test_a_task_that_does_not_work_is_one_line(problems: tuple[Any, ...], message: str):
    with pytest.raises(UsageError) as raised:
        evaluate_task(engine_that_says("yes"), Asked(*problems))
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


def test_programs_are_run_only_where_that_is_asked_for():
    ran: list[str] = []

    class Runs(Asked):
        runs_programs = True

    task = Runs(Problem(Conversation.of("a?"), "b", lambda said: ran.append(said) or True))
    with pytest.raises(UsageError, match="--task asked: runs programs that the model writes; add --run-programs"):
        evaluate_task(engine_that_says("yes"), task)
    assert not ran
    assert evaluate_task(engine_that_says("yes"), task, run_programs=True).solved == 1


@pytest.mark.parametrize("options", [{"count": 0}, {"seed": -1}])
def test_numbers_out_of_range_are_refused(options: Any):
    with pytest.raises(ConfigError, match=r"--problems|--seed"):
        evaluate_task(engine_that_says("yes"), Asked(asks("a?", "b")), **options)
