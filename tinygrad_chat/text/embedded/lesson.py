"""A lesson of the tutor: a question and its answer, which code has worked out."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from tinygrad_chat.text.conversations import CALL, RESULT, TEXT, Part
from tinygrad_chat.text.embedded.phrasings import Phrasing
from tinygrad_chat.tools import calculate


@dataclass(frozen=True)
class Lesson:
    """The question, what the tutor says and calls, and the bare `answer`: a number, or letters.

    A later question may refer to the answer, or to the `word` that this one was about.
    """

    question: str
    parts: tuple[Part, ...]
    answer: str
    word: str = ""


def phrasing_of(random: Random, held_out: bool) -> Phrasing:
    """Return the phrasings of questions to the tutor: those of training, or the `held_out` ones."""
    return Phrasing(random, held_out, "tutor")


def worked_out(question: str, expression: str, answer: str, word: str = "") -> Lesson:
    """Return a lesson that is answered by calling the calculator; `answer` has a placeholder for the result."""
    result = calculate(expression)
    parts = (Part(CALL, expression), Part(RESULT, result), Part(TEXT, answer.format(result)))
    return Lesson(question, parts, result, word)
