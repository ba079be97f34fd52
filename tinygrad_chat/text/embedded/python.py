"""The corpus `python`: what the functions of this Python do, in the words of its own documentation."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from random import Random

from tinygrad_chat.text.conversations import Conversation
from tinygrad_chat.text.embedded.corpus import EmbeddedCorpus
from tinygrad_chat.text.embedded.questions import Exchange, PythonQuestions

COUNT = 60_000
LENGTHS = {1: 4, 2: 3, 3: 2, 4: 1}
"""How many exchanges a conversation has, each number with its relative frequency."""


def any_exchange(questions: PythonQuestions, before: Exchange | None) -> Exchange:
    """Return an exchange: the first of a conversation, or one that may go back to what was said `before`."""
    drawn = questions.random.random()
    if before is not None and drawn < 0.75:
        if drawn < 0.25:
            return questions.then_name()
        return questions.then_argument(before.about) if drawn < 0.55 else questions.then_module(before.about)
    drawn = questions.random.random()
    if drawn < 0.41:
        return questions.does(questions.any_known())
    if drawn < 0.66:
        return questions.unknown()
    if drawn < 0.81:
        return questions.off_topic()
    if drawn < 0.89:
        return questions.reverse()
    known = questions.any_known()
    return questions.arguments(known) if drawn < 0.94 else questions.module(known)


def _conversations(seed: int) -> Iterator[Conversation]:
    questions = PythonQuestions(Random(f"python {seed}"))
    for _ in range(COUNT):
        said: list[str] = []
        exchange = None
        for _ in range(questions.random.choices(tuple(LENGTHS), tuple(LENGTHS.values()))[0]):
            exchange = any_exchange(questions, exchange)
            said += [exchange.question, exchange.answer]
        yield Conversation.of(*said)


PYTHON = EmbeddedCorpus(
    "python",
    "what the functions of your own Python do",
    _conversations,
    COUNT,
    f"6 for Python {platform.python_version()}",
)
