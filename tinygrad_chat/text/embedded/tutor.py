"""The corpus `tutor`: sums, units, spelling and counts of letters, endlessly many, each answer worked out by code."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from tinygrad_chat.text.conversations import Conversation
from tinygrad_chat.text.embedded.arithmetic import Arithmetic
from tinygrad_chat.text.embedded.corpus import EmbeddedCorpus
from tinygrad_chat.text.embedded.lesson import Lesson
from tinygrad_chat.text.embedded.spelling import Spelling

COUNT = 60_000
LENGTHS = {1: 5, 2: 3, 3: 2}
"""How many lessons a conversation has, and how often."""

KINDS = {"sum": 20, "story": 5, "unit": 10, "spell": 35, "backwards": 10, "letter": 12, "length": 8}
"""What a lesson is about, and how often. Most are on words: spelling takes by far the longest to learn."""

GOES_BACK, SPELLS_ON = 0.4, 0.8
LONGEST_TO_GO_ON_WITH = 9  # characters of a number


def any_lesson(arithmetic: Arithmetic, spelling: Spelling, before: Lesson | None) -> Lesson:
    """Return a lesson: the first of a conversation, or one that may go back to the one `before`."""
    random = arithmetic.random
    drawn = random.random()
    if before is not None and before.word and drawn < SPELLS_ON:
        return spelling.then(before) if drawn < GOES_BACK else spelling.then_spell()
    if before is not None and not before.word and drawn < SPELLS_ON and len(before.answer) <= LONGEST_TO_GO_ON_WITH:
        return arithmetic.then(before)
    kind = random.choices(tuple(KINDS), tuple(KINDS.values()))[0]
    return getattr(arithmetic if kind in ("sum", "story", "unit") else spelling, kind)()


def _conversations(seed: int) -> Iterator[Conversation]:
    random = Random(f"tutor {seed}")
    arithmetic, spelling = Arithmetic(random), Spelling(random)
    for _ in range(COUNT):
        lessons: list[Lesson] = []
        for _ in range(random.choices(tuple(LENGTHS), tuple(LENGTHS.values()))[0]):
            lessons.append(any_lesson(arithmetic, spelling, lessons[-1] if lessons else None))
        yield Conversation.of(*(said for lesson in lessons for said in (lesson.question, lesson.parts)))


TUTOR = EmbeddedCorpus("tutor", "sums, units and spelling, with a calculator", _conversations, "1")
