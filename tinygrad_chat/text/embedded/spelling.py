"""Words to spell, to spell backwards and to count the letters of.

A model reads a word as tokens, not letters, so it first has to spell it out. From there on the calculator helps: it is
given the letters as they were written, `'b-a-n-a-n-a'.count('a')`.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from string import ascii_lowercase

from tinygrad_chat.text.conversations import TEXT, Part
from tinygrad_chat.text.embedded.lesson import Lesson, phrasing_of, worked_out
from tinygrad_chat.text.embedded.vocabulary import CAPITALS, any_word


@dataclass(frozen=True)
class Spelling:
    """Draws lessons on words: those of training, or those `held_out`, which never occur in it."""

    random: Random
    held_out: bool = False

    def spell(self) -> Lesson:
        """Return a word to spell."""
        return self.spelled(self._word())

    def spelled(self, word: str) -> Lesson:
        """Return the spelling of that word."""
        return self._spelled("spell", word)

    def backwards(self) -> Lesson:
        """Return a word to spell backwards."""
        return self._backwards("backwards", self._word())

    def length(self) -> Lesson:
        """Return a word to count the letters of."""
        return self._length("length", self._word())

    def letter(self) -> Lesson:
        """Return a word to count a letter in."""
        return self._letter("letter", self._word())

    def then_spell(self) -> Lesson:
        """Spell another word."""
        return self._spelled("then_spell", self._word())

    def then(self, before: Lesson) -> Lesson:
        """Go back to the word of the lesson before."""
        ways = {"backwards": self._backwards, "length": self._length, "letter": self._letter, "respell": self._spelled}
        kind = self.random.choice(tuple(ways))
        return ways[kind](f"then_{kind}", before.word)

    def _word(self) -> str:
        return any_word(self.random, held_out=self.held_out)

    def _spelled(self, kind: str, word: str) -> Lesson:
        return Lesson(self._asked(kind, word), (Part(TEXT, letters(word)),), letters(word), word)

    def _backwards(self, kind: str, word: str) -> Lesson:
        return worked_out(self._asked(kind, word), f"'{letters(word)}'[::-1]", "{}", word)

    def _length(self, kind: str, word: str) -> Lesson:
        return worked_out(
            self._asked(kind, word), f"'{letters(word)}'.count('-')+1", f"I count {{}} letters in {word}.", word
        )

    def _letter(self, kind: str, word: str) -> Lesson:
        """Ask for one of its letters, or now and then for any."""
        letter = self.random.choice(word.lower() if self.random.random() < 0.85 else ascii_lowercase)
        written = letter.upper() if self.random.random() < CAPITALS else letter
        question = self._asked(kind, word, letter=written)
        expression = f"'{letters(word.lower())}'.count('{letter}')"
        return worked_out(question, expression, f"I count {{}} {letter} in {word}.", word)

    def _asked(self, kind: str, word: str, letter: str = "") -> str:
        return phrasing_of(self.random, self.held_out).ask(kind, word, word=word, letter=letter)


def letters(word: str) -> str:
    """Return a word letter by letter: `b-a-n-a-n-a`."""
    return "-".join(word)
