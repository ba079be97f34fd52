"""Sums and unit conversions: the tutor calls its calculator, and states the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from random import Random

from tinygrad_chat.text.embedded.corpus import is_held_out
from tinygrad_chat.text.embedded.lesson import Lesson, phrasing_of, worked_out
from tinygrad_chat.text.embedded.phrasings import Phrasing, data_file
from tinygrad_chat.tools import calculate

SIGNS = ("+", "-", "*", "/")
NAMES = {
    "+": ("plus", "and", "added to"),
    "-": ("minus",),
    "*": ("times", "x", "multiplied by"),
    "/": ("divided by", "over"),
}
DIGITS = {1: 3, 2: 5, 3: 4, 4: 2}
"""How many digits a number has, each count with its relative frequency."""

THREE, DECIMALS, WITHOUT_REST = 0.25, 0.12, 0.7
"""Shares of sums of three numbers, of numbers with decimals, and of divisions without a remainder."""


@dataclass(frozen=True)
class Arithmetic:
    """Draws lessons on sums and units: those of training, or those `held_out`, which never occur in it."""

    random: Random
    held_out: bool = False

    def sum(self) -> Lesson:
        """Return a sum of two or three numbers, in signs or in words."""
        return self._kept(self._summed)

    def story(self) -> Lesson:
        """Return a word problem."""
        story = self.random.choice(data_file("tutor")["story"])
        words = {kind: self.random.choice(listed.split()) for kind, listed in data_file("tutor")["words"].items()}
        return self._kept(lambda: self._told(story, words))

    def unit(self) -> Lesson:
        """Return an amount to convert into another unit."""
        unit = self.random.choice(data_file("tutor")["unit"])
        return self._kept(lambda: self._converted(unit, self._number(most=3)))

    def then(self, before: Lesson) -> Lesson:
        """Continue with the result of the lesson before: `and times 3?`."""
        return self._kept(lambda: self._continued(before.answer))

    def _kept(self, draw: Callable[[], Lesson]) -> Lesson:
        """Draw lessons until the expression of one is on our side of the split, and return that one."""
        while True:
            lesson = draw()
            if is_held_out(lesson.parts[0].text) == self.held_out:
                return lesson

    @cached_property
    def _phrasing(self) -> Phrasing:
        return phrasing_of(self.random, self.held_out)

    def _summed(self) -> Lesson:
        expression = self._expression()
        return worked_out(self._phrasing.ask("sum", self._spoken(expression)), expression, f"{expression} is {{}}.")

    def _told(self, story: Mapping[str, str], words: Mapping[str, str]) -> Lesson:
        a, b = self.random.randint(2, 99), self.random.randint(2, 30)
        numbers = {"a": a, "b": b, "total": a + self.random.randint(1, 99), "product": a * b}
        question = self._phrasing.typed(story["asked"]).format(**numbers, **words)
        return worked_out(question, story["sum"].format(**numbers), story["answer"].format("{}", **numbers, **words))

    def _converted(self, unit: Mapping[str, str], amount: str) -> Lesson:
        name = self.random.choice((unit["from"], unit.get("short", unit["from"])))
        question = self._phrasing.ask("amount", n=amount, unit=name, other=unit["to"])
        return worked_out(question, unit["sum"].format(n=amount), f"{amount} {name} is {{}} {unit['to']}.")

    def _continued(self, number: str) -> Lesson:
        sign, other = self.random.choice(SIGNS), self.random.randint(2, 20)
        rest = f"{self.random.choice((sign, NAMES[sign][0]))} {other}"
        expression = f"{number}{sign}{other}"
        return worked_out(self._phrasing.ask("then_sum", rest), expression, f"{expression} is {{}}.")

    def _expression(self) -> str:
        random, sign = self.random, self.random.choice(SIGNS)
        if random.random() < THREE:
            a, b, c = (self._number(most=2) for _ in range(3))
            first, then = random.choice(SIGNS[:3]), random.choice(SIGNS[:3])
            return random.choice((f"{a}{first}{b}{then}{c}", f"({a}{first}{b}){then}{c}", f"{a}{first}({b}{then}{c})"))
        a, b = self._number(), self._number(most=3 if sign in "*/" else 4)
        if sign == "/" and random.random() < WITHOUT_REST:
            a = calculate(f"{a}*{b}")
        return f"{a}{sign}{b}"

    def _number(self, most: int = 4) -> str:
        """Return a number above 0, now and then with decimals."""
        digits = min(most, self.random.choices(tuple(DIGITS), tuple(DIGITS.values()))[0])
        whole = self.random.randint(10 ** (digits - 1), 10**digits - 1)
        if self.random.random() > DECIMALS:
            return str(whole)
        return f"{whole}.{self.random.choice((5, 25, 75, self.random.randint(1, 9)))}"

    def _spoken(self, expression: str) -> str:
        """Return a sum as people write it: with spaces around its signs, or with words for them."""
        kind = self.random.random()
        if kind < 0.35:
            return expression
        words = {sign: f" {self.random.choice(NAMES[sign]) if kind > 0.65 else sign} " for sign in SIGNS}
        return "".join(words.get(letter, letter) for letter in expression)
