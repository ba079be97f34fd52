"""The corpus `self`: what the model says about itself and its field, small talk, and questions about what was said.

The model never memorises its own figures: it asks its calculator for them by name and copies the result. In training
that is any plausible number; in a chat it is the run's own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from random import Random
from typing import Any

from tinygrad_chat.text.conversations import CALL, RESULT, TEXT, Conversation, Part
from tinygrad_chat.text.embedded.arithmetic import Arithmetic
from tinygrad_chat.text.embedded.corpus import EmbeddedCorpus, is_held_out
from tinygrad_chat.text.embedded.made_up import made_up_word
from tinygrad_chat.text.embedded.phrasings import Phrasing, data_file
from tinygrad_chat.text.embedded.python import any_exchange
from tinygrad_chat.text.embedded.questions import Exchange, PythonQuestions
from tinygrad_chat.text.embedded.spelling import Spelling
from tinygrad_chat.text.embedded.tutor import any_lesson

Others = tuple[PythonQuestions, Arithmetic, Spelling]
"""The generators of the exchanges of the other corpora."""

COUNT = 40_000
LENGTHS = {1: 4, 2: 4, 3: 3, 4: 1}
"""How many exchanges a conversation has, each number with its relative frequency."""
LONGEST_COPIED = 60  # characters of a question or an answer that is repeated

PLAUSIBLE = {
    "parameters": (1e4, 1e9),
    "layers": (1, 64),
    "heads": (1, 64),
    "width": (16, 8192),
    "context": (16, 8192),
    "vocabulary": (265, 1e5),
    "steps": (10, 1e6),
    "tokens": (1e5, 1e11),
    "loss": (0.03, 6.0),
    "minutes": (0.1, 2000.0),
}
"""The figures that a model has, and the range from which each is drawn in training."""


@cache
def glossary() -> dict[str, str]:
    """Return the terms of the field, each with a sentence on it."""
    return data_file("glossary")


@dataclass(frozen=True)
class Talk:
    """Draws exchanges about the model, its field, and what was said; with `held_out`, ones that training never has."""

    random: Random
    held_out: bool = False

    @cached_property
    def phrasing(self) -> Phrasing:
        """How people say it."""
        return Phrasing(self.random, self.held_out, "talk")

    def figure(self, name: str = "") -> Exchange:
        """Ask for one of the model's figures."""
        figure = next(each for each in self._figures() if not name or each["name"] == name)
        value = plausible(figure["name"], self.random)
        return Exchange(
            self.phrasing.ask_one_of(figure),
            (Part(CALL, figure["name"]), Part(RESULT, value), Part(TEXT, figure["says"].format(value))),
        )

    def term(self) -> Exchange:
        """Ask for a term of the field."""
        term, sentence = self.random.choice(tuple(glossary().items()))
        article = "an" if term[0] in "aeiou" else "a"
        return Exchange(self.phrasing.ask("glossary", term, a=f"{article} {term}"), sentence)

    def small_talk(self) -> Exchange:
        """Make small talk."""
        said = self.random.choice(data_file("talk")["talk"])
        return Exchange(self.phrasing.ask_one_of(said), said["answer"])

    def introduction(self) -> tuple[str, Exchange]:
        """Return a name, and an exchange in which the user introduces themselves by it."""
        name = self._person()
        return name, Exchange(self.phrasing.ask("my_name", name), f"Nice to meet you, {name}.")

    def which_name(self, name: str) -> Exchange:
        """Ask for the user's own name; `name` is '' if it was not told."""
        answer = f"Your name is {name}." if name else "You have not told me your name."
        return Exchange(self.phrasing.ask("which_name"), answer)

    def which_question(self, before: Exchange) -> Exchange:
        """Ask what the question before was."""
        return Exchange(self.phrasing.ask("which_question"), f"You asked: {before.question}", before.about)

    def again(self, before: Exchange) -> Exchange:
        """Ask for the same answer again."""
        return Exchange(self.phrasing.ask("again"), before.answer, before.about)

    def _figures(self) -> Sequence[dict[str, Any]]:
        figures = data_file("talk")["figure"]
        return self.random.sample(figures, len(figures))

    def _person(self) -> str:
        while True:
            listed = self.random.random() < 0.5
            name = self.random.choice(data_file("talk")["words"]["people"].split()) if listed else self._unheard_of()
            if is_held_out(name, share=5) == self.held_out:
                return name if self.random.random() < 0.8 else name.lower()

    def _unheard_of(self) -> str:
        return made_up_word(self.random).capitalize()


def plausible(name: str, random: Random) -> str:
    """Return a figure as the calculator writes it, drawn so that each order of magnitude is equally likely."""
    lowest, highest = PLAUSIBLE[name]
    number = math.exp(random.uniform(math.log(lowest), math.log(highest)))
    if isinstance(highest, float) and highest < 1e4:
        return f"{number:.{2 if name == 'loss' else 1}f}".rstrip("0").rstrip(".")
    return str(round(number))


def _conversations(seed: int) -> Iterator[Conversation]:
    random = Random(f"self {seed}")
    talk, others = Talk(random), (PythonQuestions(random), Arithmetic(random), Spelling(random))
    for _ in range(COUNT):
        name, said = "", []
        for _ in range(random.choices(tuple(LENGTHS), tuple(LENGTHS.values()))[0]):
            before = said[-1] if said else None
            told, exchange = _any_exchange(talk, others, before, name)
            name = told or name
            said.append(exchange)
        yield Conversation.of(*(text for exchange in said for text in (exchange.question, exchange.answer)))


def _any_exchange(talk: Talk, others: Others, before: Exchange | None, name: str) -> tuple[str, Exchange]:
    """Return an exchange, which may refer to what was said, after the name that the user tells in it, if any.

    Some exchanges are those of the other corpora, as people change the subject within a conversation.
    """
    drawn = talk.random.random()
    if before is not None and drawn < 0.55:
        if drawn < (0.4 if name else 0.05):
            return "", talk.which_name(name)
        if drawn < 0.44 and len(before.question) <= LONGEST_COPIED:
            return "", talk.which_question(before)
        if isinstance(before.answer, str) and len(before.answer) <= LONGEST_COPIED:
            return "", talk.again(before)
    drawn = talk.random.random()
    if drawn < 0.22:
        return talk.introduction()
    if drawn < 0.38:
        return "", talk.small_talk()
    if drawn < 0.50:
        return "", talk.figure()
    if drawn < 0.66:
        return "", talk.term()
    questions, arithmetic, spelling = others
    if drawn < 0.83:
        return "", any_exchange(questions, None)
    lesson = any_lesson(arithmetic, spelling, None)
    return "", Exchange(lesson.question, lesson.parts)


SELF = EmbeddedCorpus("self", "the model itself, its field, and small talk", _conversations, COUNT, "4")
