"""Sums, units and words to work out: endlessly many problems, whose numbers, words and phrasings are held out.

Only the answer counts, not whether the model used a tool to find it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from random import Random

from tinygrad_chat.tasks.task import Problem
from tinygrad_chat.text.conversations import Conversation
from tinygrad_chat.text.embedded.arithmetic import Arithmetic
from tinygrad_chat.text.embedded.lesson import Lesson
from tinygrad_chat.text.embedded.spelling import Spelling
from tinygrad_chat.text.embedded.vocabulary import made_of_parts, real_words


class _Lessons:
    """Endlessly many lessons to work out: `problems` yields held-out ones, and `practice`, for reinforcement learning,
    ones made as for training."""

    name: str
    chance = 0.0

    def problems(self, count: int, seed: int) -> Iterator[Problem]:
        """Yield `count` problems."""
        return islice(self._asked(Random(f"task {self.name} {seed}"), held_out=True), count)

    def practice(self, count: int, seed: int) -> Iterator[Problem]:
        """Yield `count` problems to train on."""
        return islice(self._asked(Random(f"practice {self.name} {seed}"), held_out=False), count)

    def _asked(self, random: Random, *, held_out: bool) -> Iterator[Problem]:
        """Yield problems without end."""
        raise NotImplementedError


class Sums(_Lessons):
    """Sums in symbols and in words, word problems, and sums that continue from the previous result."""

    name, about = "sums", "work out sums with numbers that are new, in signs and in words"

    def _asked(self, random: Random, *, held_out: bool) -> Iterator[Problem]:
        arithmetic = Arithmetic(random, held_out)
        for kind in cycle(("sum", "sum", "story", "then")):
            first = arithmetic.story() if kind == "story" else arithmetic.sum()
            if kind == "then":
                yield _problem(arithmetic.then(first), last_number, first)
            else:
                yield _problem(first, last_number)


class Units(_Lessons):
    """Amounts to convert from one unit to another."""

    name, about = "units", "convert amounts that are new into another unit"

    def _asked(self, random: Random, *, held_out: bool) -> Iterator[Problem]:
        arithmetic = Arithmetic(random, held_out)
        while True:
            yield _problem(arithmetic.unit(), last_number)


class Words(_Lessons):
    """Words to spell: real and made-up ones in turn."""

    name, about = "spelling", "spell words that are new, half of them made up"

    def _asked(self, random: Random, *, held_out: bool) -> Iterator[Problem]:
        spelling = Spelling(random, held_out)
        for real in cycle((True, False)):
            word = random.choice(real_words(held_out)) if real else made_of_parts(random, held_out=held_out)
            yield _problem(spelling.spelled(word), letters_alone)


class Letters(_Lessons):
    """Letters to count and words to reverse, also as follow-up questions."""

    name, about = "letters", "count the letters of words that are new, and turn them around"

    def _asked(self, random: Random, *, held_out: bool) -> Iterator[Problem]:
        spelling = Spelling(random, held_out)
        for draw in cycle((spelling.letter, spelling.length, spelling.backwards, None)):
            before = () if draw else (spelling.spell(),)
            lesson = draw() if draw else spelling.then(*before)
            yield _problem(lesson, last_number if lesson.answer.isdecimal() else letters_alone, *before)


def last_number(text: str) -> str:
    """Return the last number in an answer, "" if there is none.

    >>> last_number("12+7 is 19."), last_number("That is -0.5"), last_number("none")
    ('19', '-0.5', '')
    """
    numbers = re.findall(r"-?\d+(?:\.\d+)?", text)
    return numbers[-1] if numbers else ""


def letters_alone(text: str) -> str:
    """Return an answer without surrounding spaces, line ends and full stops.

    >>> letters_alone(" b-a-n-a-n-a. ")
    'b-a-n-a-n-a'
    """
    return text.strip(" .\n")


def _problem(lesson: Lesson, found: Callable[[str], str], *before: Lesson) -> Problem:
    said = [said for each in before for said in (each.question, each.parts)]
    text = "".join(part.text for part in lesson.parts if part.kind == "text")
    return Problem(Conversation.of(*said, lesson.question), text, lambda answer: found(answer) == lesson.answer)
