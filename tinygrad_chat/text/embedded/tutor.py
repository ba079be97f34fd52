"""The corpus `tutor`: endlessly many sums, units, spellings and letter counts, each answer worked out by code."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from random import Random

from tinygrad_chat.text.conversations import Conversation
from tinygrad_chat.text.embedded.arithmetic import Arithmetic
from tinygrad_chat.text.embedded.corpus import EmbeddedCorpus
from tinygrad_chat.text.embedded.lesson import Lesson
from tinygrad_chat.text.embedded.spelling import Spelling

COUNT = 60_000
LENGTHS = {1: 5, 2: 3, 3: 2}
"""How many lessons a conversation has, each number with its relative frequency."""

WEIGHTS = (20, 5, 10, 35, 10, 12, 8)
"""How often a lesson is a sum, a word problem, a unit conversion; a word to spell, to spell backwards, to count a
letter in, to count all letters of. Most are on words: spelling takes longest to learn."""

GOES_BACK, SPELLS_ON = 0.4, 0.8
"""Of a draw from 0 to 1: below the former, a later lesson goes back to the word before; up to the latter, it spells
another one. After a sum, it continues with the result up to the latter."""

LONGEST_TO_GO_ON_WITH = 9  # characters of a number


def any_lesson(arithmetic: Arithmetic, spelling: Spelling, before: Lesson | None) -> Lesson:
    """Return a lesson: the first of a conversation, or one that may go back to the one `before`."""
    random = arithmetic.random
    drawn = random.random()
    if before is not None and before.word and drawn < SPELLS_ON:
        return spelling.then(before) if drawn < GOES_BACK else spelling.then_spell()
    if before is not None and not before.word and drawn < SPELLS_ON and len(before.answer) <= LONGEST_TO_GO_ON_WITH:
        return arithmetic.then(before)
    sums = (arithmetic.sum, arithmetic.story, arithmetic.unit)
    words = (spelling.spell, spelling.backwards, spelling.letter, spelling.length)
    return random.choices((*sums, *words), WEIGHTS)[0]()


def _conversations(seed: int) -> Iterator[Conversation]:
    random = Random(f"tutor {seed}")
    arithmetic, spelling = Arithmetic(random), Spelling(random)
    for _ in range(COUNT):
        lessons: list[Lesson] = []
        for _ in range(random.choices(tuple(LENGTHS), tuple(LENGTHS.values()))[0]):
            lessons.append(any_lesson(arithmetic, spelling, lessons[-1] if lessons else None))
        yield Conversation.of(*(said for lesson in lessons for said in (lesson.question, lesson.parts)))


TUTOR = EmbeddedCorpus(
    "tutor",
    "sums, units and spelling, with a calculator",
    _conversations,
    COUNT,
    f"2 for Python {platform.python_version()}",
)
