"""A lesson of the tutor: a question and its answer, which code has worked out."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from tinygrad_chat.text.conversations import CALL, RESULT, TEXT, Part
from tinygrad_chat.text.embedded.phrasings import Phrasing
from tinygrad_chat.tools import calculate


@dataclass(frozen=True)
class Lesson:
    """What is asked, what the tutor says and calls, and the bare `answer`: a number, or letters.

    A later question may go back to the answer, or to the `word` that this one was about.
    """

    question: str
    parts: tuple[Part, ...]
    answer: str
    word: str = ""


def phrasing_of(random: Random, held_out: bool) -> Phrasing:
    """Return how the tutor is asked: as in training, or in a way that is `held_out`."""
    return Phrasing(random, held_out, "tutor")


def worked_out(question: str, expression: str, answer: str, word: str = "") -> Lesson:
    """Return a question that is answered by calling the calculator; `answer` has a place for what it says."""
    result = calculate(expression)
    parts = (Part(CALL, expression), Part(RESULT, result), Part(TEXT, answer.format(result)))
    return Lesson(question, parts, result, word)
