"""Questions with four answers to choose from: which sentence says what a function of Python does?

>>> print(lettered("Which is a fruit?", ["a pear", "a chair"]))
Which is a fruit?
- a pear=A
- a chair=B
Answer with a letter.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from tinygrad_chat.tasks.task import Problem
from tinygrad_chat.text.conversations import Conversation

CHOICES = 4
LETTERS = "ABCD"


class Sentences:
    """The model is asked what a function does; the likeliest of four sentences is its answer."""

    name = "sentences"
    about = "choose what a function of Python does, by the likelihood of four sentences"
    chance = 1 / CHOICES

    def problems(self, count: int, seed: int) -> Iterator[Problem]:
        """Yield at most as many problems as Python documents functions."""
        for name, choices, right in _questions(count, seed):
            sentence = choices[right]
            yield Problem(Conversation.of(f"What does {name} do?"), sentence, sentence.__eq__, tuple(choices))


class Choices(Sentences):
    """The same with the sentences in the question, each followed by its letter: small models associate them better in
    this order."""

    name = "choices"
    about = "choose what a function of Python does, by the letter after its sentence"

    def problems(self, count: int, seed: int) -> Iterator[Problem]:
        """Yield at most as many problems as Python documents functions."""
        for name, choices, right in _questions(count, seed):
            question = Conversation.of(lettered(f"What does {name} do?", choices))
            yield Problem(question, LETTERS[right], LETTERS[right].__eq__, tuple(LETTERS))


def lettered(question: str, choices: Sequence[str]) -> str:
    """Return a question with its choices, each followed by its letter."""
    lines = [f"- {choice}={letter}" for choice, letter in zip(choices, LETTERS, strict=False)]
    return "\n".join([question, *lines, "Answer with a letter."])


def _questions(count: int, seed: int) -> Iterator[tuple[str, list[str], int]]:
    """Yield a name, four different sentences in random order, and the index of the right one."""
    from tinygrad_chat.text.embedded.documented import documented

    drawn = random.Random(seed)
    known = {each.name: each.sentence for each in documented().values()}
    sentences = sorted(set(known.values()))
    for name in drawn.sample(sorted(known), min(count, len(known))):
        others = drawn.sample([each for each in sentences if each != known[name]], CHOICES - 1)
        choices = drawn.sample([known[name], *others], CHOICES)
        yield name, choices, choices.index(known[name])
