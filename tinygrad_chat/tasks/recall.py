"""Tasks for a model trained on the embedded corpora: facts about Python, made-up names, and follow-up questions.

Phrasings, made-up names, topics and people's names are held out: they never occur in training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle, islice
from random import Random

from tinygrad_chat.tasks.task import Problem
from tinygrad_chat.text.conversations import Conversation
from tinygrad_chat.text.embedded.itself import Talk
from tinygrad_chat.text.embedded.questions import REFUSAL, Exchange, PythonQuestions

REFUSES = REFUSAL.partition(";")[0]
"""The beginning of every refusal."""


class Documentation:
    """Say what a documented name does, in the words of its documentation."""

    name, about, chance = "python", "say what a function does, word for word, in a phrasing that is new", 0.0

    def problems(self, count: int, seed: int) -> Iterator[Problem]:
        """Yield as many problems as are asked for."""
        questions = _questions(self.name, seed)
        return (_word_for_word(questions.does(questions.any_known())) for _ in range(count))


class Reverse:
    """Name the function that does what is described."""

    name, about, chance = "reverse", "name the function that does something", 0.0

    def problems(self, count: int, seed: int) -> Iterator[Problem]:
        """Yield as many problems as are asked for."""
        questions = _questions(self.name, seed)
        return (_word_for_word(questions.reverse()) for _ in range(count))


class Unknown:
    """Refuse what does not exist or is not about Python: made-up names and other topics in turn."""

    name, about, chance = "unknown", "say that it does not know a made-up name, or another topic", 0.0

    def problems(self, count: int, seed: int) -> Iterator[Problem]:
        """Yield as many problems as are asked for."""
        questions = _questions(self.name, seed)
        return (_checked(ask(), is_refusal) for ask in islice(cycle((questions.unknown, questions.off_topic)), count))


class Known:
    """Do not refuse a documented name; the answer may be wrong."""

    name, about, chance = "known", "do not refuse what it has learned", 0.0

    def problems(self, count: int, seed: int) -> Iterator[Problem]:
        """Yield as many problems as are asked for."""
        questions = _questions(self.name, seed)
        for _ in range(count):
            yield _checked(questions.does(questions.any_known()), _says_something)


class Turns:
    """Answer second and third questions, which only make sense after what was said before."""

    name, about, chance = "turns", "answer a second question: another name, an argument, what was said", 0.0

    def problems(self, count: int, seed: int) -> Iterator[Problem]:
        """Yield as many problems as are asked for."""
        questions = _questions(self.name, seed)
        talk = Talk(questions.random, held_out=True)
        for kind in islice(cycle(range(4)), count):
            first = questions.does(questions.any_known())
            if kind == 0:
                yield _word_for_word(questions.then_argument(first.about), first)
            elif kind == 1:
                yield _word_for_word(questions.then_name(), first)
            elif kind == 2:
                name, told = talk.introduction()
                yield _word_for_word(talk.which_name(name), *(told, first)[: questions.random.randint(1, 2)])
            else:
                yield _word_for_word(questions.then_module(first.about), first)


def is_refusal(text: str) -> bool:
    """Return whether an answer says that the model does not know."""
    return text.strip().startswith(REFUSES)


def _says_something(text: str) -> bool:
    return any(map(str.isalpha, text)) and not is_refusal(text)


def _questions(name: str, seed: int) -> PythonQuestions:
    return PythonQuestions(Random(f"task {name} {seed}"), held_out=True)


def _word_for_word(asked: Exchange, *before: Exchange) -> Problem:
    return _checked(asked, lambda text: text.strip() == asked.answer, *before)


def _checked(asked: Exchange, check: Callable[[str], bool], *before: Exchange) -> Problem:
    said = [text for exchange in before for text in (exchange.question, exchange.answer)]
    return Problem(Conversation.of(*said, asked.question), str(asked.answer), check)
