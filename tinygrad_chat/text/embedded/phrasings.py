"""How people ask: phrasings with a placeholder for a name, some of them held out, varied to look typed by hand."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from functools import cache
from importlib import resources
from random import Random
from typing import Any

from tinygrad_chat.schema import parse_toml
from tinygrad_chat.text.embedded.corpus import is_held_out

MISTYPED, LOWERED, UNMARKED, OPENED, CLOSED, WRAPPED, FILLED, ASIDE = 0.12, 0.4, 0.35, 0.2, 0.2, 0.35, 0.15, 0.08
"""Shares of questions, among those that can be varied so: with a typo, in lower case, without final punctuation, with
an opener such as a greeting, with a closer such as `please`, within another question, with a filler word, and with an
unrelated sentence beside it."""

SIMPLE = re.compile(r"(What|Who|Where) (is|was|are) ((?:(?:your|my|the|its|a) )?[\w{}]+)\?")
"""A question that can stand within another: `What is {}?`, as in `Do you know what {} is?`."""


ALTERNATIVES = re.compile(r"\[([^\]]*\|[^\]]*)\]")


@cache
def data_file(name: str) -> dict[str, Any]:
    """Return the contents of a TOML file in this folder."""
    file = resources.files("tinygrad_chat.text.embedded") / f"{name}.toml"
    return parse_toml(file.read_text(encoding="utf-8"), source=file.name)


@cache
def words(kind: str, held_out: bool | None = None) -> tuple[str, ...]:
    """Return the words of a list: all, or those that are trained on, or those that only tasks use."""
    text = data_file("phrasings")["words"][kind]
    listed = (word.strip() for word in (text.split(";") if ";" in text else text.split()))
    return tuple(word for word in listed if held_out is None or is_held_out(word) == held_out)


@dataclass(frozen=True)
class Phrasing:
    """Draws phrasings of questions: those of training, or the `held_out` ones."""

    random: Random
    held_out: bool = False
    file: str = "phrasings"

    def ask(self, kind: str, *names: str, **fields: str) -> str:
        """Return a question of that kind about names, as people type it; no name is mistyped."""
        return self.ask_one_of(data_file(self.file)[kind]).format(*names, **fields)

    def ask_one_of(self, phrasings: Mapping[str, Any]) -> str:
        """Return one of the phrasings that are `asked`, or of those `held_out`, as people type it.

        An `asked` one may have alternatives, as in `What [is|was] {}?`, and is drawn again if it became a held-out one.
        """
        if self.held_out:
            return self.typed(self.random.choice(phrasings["held_out"]))
        while True:
            asked = phrasings["asked"]
            (phrasing,) = self.random.choices(asked, cum_weights=_weights(tuple(asked)))
            typed = self.typed(ALTERNATIVES.sub(self._one_of, phrasing))
            if plain(typed) not in _every_held_out(self.file):
                return typed

    def _one_of(self, found: re.Match[str]) -> str:
        return self.random.choice(found[1].split("|"))

    def typed(self, phrasing: str) -> str:
        """Return a phrasing, varied at random as if typed in a hurry."""
        random = self.random
        if random.random() < WRAPPED:
            phrasing = random.choice(within_another(phrasing))
        if random.random() < CLOSED and len(phrasing) > 8:
            said = phrasing.rstrip("?.!")
            closed = random.choice(words("closers")) if random.random() < 0.6 else "please"
            phrasing = f"{said}{random.choice(('', ','))} {closed}{phrasing[len(said) :]}"
        if random.random() < ASIDE:
            aside = random.choice(words("asides"))
            phrasing = random.choice(
                (f"{aside}. {phrasing}", f"{phrasing.rstrip('?.!')}, {aside[:1].lower()}{aside[1:]}")
            )
        if random.random() < FILLED:
            phrasing = _filled(phrasing, random)
        if random.random() < MISTYPED:
            phrasing = _mistyped(phrasing, random)
        if random.random() < LOWERED:
            phrasing = phrasing.lower()
        if random.random() < UNMARKED:
            phrasing = phrasing.rstrip("?.!")
        if random.random() < OPENED:
            phrasing = f"{random.choice(words('openers'))} {phrasing[:1].lower()}{phrasing[1:]}"
        return phrasing or "?"


@cache
def _weights(asked: tuple[str, ...]) -> list[float]:
    """Return cumulative weights of the phrasings: the more alternatives one has, the more often it is drawn."""
    ways = (math.prod(found.count("|") + 1 for found in ALTERNATIVES.findall(phrasing)) for phrasing in asked)
    return list(itertools.accumulate(math.sqrt(count) for count in ways))


def within_another(phrasing: str) -> list[str]:
    """Return a phrasing within others, so that no beginning gives away the kind of question: `Could you explain {}.`"""
    first, _, rest = phrasing.partition(" ")
    if rest and first.lower() in words("orders"):
        return [f"{before} {first.lower()} {rest}" for before in words("before_orders")]
    if simple := SIMPLE.fullmatch(phrasing):
        asks, verb, thing = simple.groups()
        return [f"{before} {asks.lower()} {thing} {verb}?" for before in words("before_questions")]
    return [phrasing]


def plain(phrasing: str) -> str:
    """Return a phrasing in lower case, without final punctuation, openers and closers."""
    openers, closers = _around()
    said = phrasing.lower().rstrip("?.!").removesuffix(" please").rstrip(" ,")
    if said.endswith(closers):
        for closer in closers:
            said = said.removesuffix(closer).rstrip(" ,")
    if said.startswith(openers):
        for opener in openers:
            said = said.removeprefix(opener)
    return said


@cache
def _around() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the openers and closers of questions, in lower case and with the space next to the question."""
    openers = tuple(f"{opener.lower()} " for opener in words("openers"))
    return openers, tuple(f" {closer}" for closer in words("closers"))


@cache
def _every_held_out(file: str) -> Set[str]:
    """Return all phrasings in a file that only tasks use, without variations."""
    return {plain(phrasing) for phrasing in _held_out_below(data_file(file))}


def _held_out_below(section: Any) -> Iterator[str]:
    if isinstance(section, dict | list):
        yield from section.get("held_out", ()) if isinstance(section, dict) else ()
        for each in section.values() if isinstance(section, dict) else section:
            yield from _held_out_below(each)


def _filled(phrasing: str, random: Random) -> str:
    """Return a phrasing with a filler word in it."""
    pieces = phrasing.split(" ")
    place = random.randint(1, len(pieces)) if len(pieces) > 2 else 0
    if not place or "{" in " ".join(pieces[place - 1 : place + 1]):  # names stay intact
        return phrasing
    return " ".join([*pieces[:place], random.choice(words("fillers")), *pieces[place:]])


def _mistyped(phrasing: str, random: Random) -> str:
    """Return a phrasing with a wrong letter in one of its longer words."""
    pieces = phrasing.split(" ")
    longer = [place for place, piece in enumerate(pieces) if piece.isalpha() and len(piece) > 3]
    if longer:
        place = random.choice(longer)
        pieces[place] = one_letter_wrong(pieces[place], random)
    return " ".join(pieces)


def one_letter_wrong(word: str, random: Random) -> str:
    """Return a word of three letters or more with one left out, doubled, changed, or two swapped; never the first."""
    place = random.randrange(1, len(word) - 1)
    before, letter, after = word[:place], word[place], word[place + 1 :]
    other = random.choice("abcdefghijklmnopqrstuvwxyz")
    return random.choice(
        [
            before + after,
            before + letter + letter + after,
            before + other + after,
            before + after[0] + letter + after[1:],
        ]
    )
