"""Questions about this Python's names, and their answers: an exchange for each thing that can be asked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, cached_property
from random import Random

from tinygrad_chat.text.conversations import Part
from tinygrad_chat.text.embedded.documented import TYPES, Documented, documented, every_documented
from tinygrad_chat.text.embedded.made_up import known_names, made_up_name
from tinygrad_chat.text.embedded.phrasings import Phrasing, data_file, words

REFUSAL = "I don't know that; I know about Python, sums, spelling and myself."
ORDINALS = ("first", "second", "third", "fourth", "fifth")
MAX_ARGUMENTS = 6


@dataclass(frozen=True)
class Exchange:
    """A question, its answer, and the name that it is about, to which a later question may refer."""

    question: str
    answer: str | tuple[Part, ...]
    about: Documented | None = None


@dataclass(frozen=True)
class PythonQuestions:
    """Draws exchanges about names; with `held_out`, in phrasings and about made-up names and topics that never occur
    in training."""

    random: Random
    held_out: bool = False

    @cached_property
    def phrasing(self) -> Phrasing:
        """How questions are asked."""
        return Phrasing(self.random, self.held_out, "phrasings")

    def any_known(self) -> Documented:
        """Return a documented name, drawn uniformly."""
        return self.random.choice(every_documented())

    def does(self, known: Documented) -> Exchange:
        """Ask what a name does."""
        return Exchange(self.phrasing.ask("does", self._written(known)), known.sentence, known)

    def arguments(self, known: Documented) -> Exchange:
        """Ask for a name's arguments."""
        return Exchange(self.phrasing.ask("arguments", self._written(known)), arguments_of(known), known)

    def module(self, known: Documented) -> Exchange:
        """Ask where a name is from."""
        return Exchange(self.phrasing.ask("module", self._written(known)), module_of(known), known)

    def reverse(self) -> Exchange:
        """Ask which function does something."""
        if self.random.random() < 0.3:
            intent = self.random.choice([i for i in data_file("phrasings")["intent"] if i["names"][0] in documented()])
            wish, names = self.random.choice(intent["asks"]), intent["names"]
        else:
            wish, names = self.random.choice(_wishes())
        question = self.phrasing.ask("reverse", wish, s=_third_person(wish))
        return Exchange(question, f"Use {' or '.join(names)}.", documented()[names[0]])

    def unknown(self) -> Exchange:
        """Ask about a name that does not exist."""
        name = made_up_name(self.random, held_out=self.held_out)
        kind = self.random.choices(("does", "arguments", "module"), (8, 1, 1))[0]
        home, _, last = name.rpartition(".")
        alone = "" if last.lower() in known_names() else last  # of dict.split, split does exist
        return Exchange(self.phrasing.ask(kind, self._form(name, home, alone)), REFUSAL)

    def off_topic(self) -> Exchange:
        """Ask about something other than Python."""
        template = self.phrasing.ask_one_of(data_file("phrasings")["off_topic"])
        return Exchange(re.sub(r"\{(\w+)\}", lambda found: self._topic(found[1]), template), REFUSAL)

    def then_name(self) -> Exchange:
        """Ask about another name, known or not, in the few words of a follow-up question."""
        if self.random.random() < 0.3:
            name = made_up_name(self.random, held_out=self.held_out)
            return Exchange(self.phrasing.ask("then_name", name), REFUSAL)
        known = self.any_known()
        return Exchange(self.phrasing.ask("then_name", self._written(known)), known.sentence, known)

    def then_argument(self, known: Documented | None) -> Exchange:
        """Ask for an argument of the name that was just discussed."""
        number = self.random.choices(range(len(ORDINALS)), (4, 4, 4, 1, 1))[0]
        answer = REFUSAL if known is None else argument_of(known, number)
        return Exchange(self.phrasing.ask("then_argument", ORDINALS[number]), answer, known)

    def then_module(self, known: Documented | None) -> Exchange:
        """Ask where the name that was just discussed is from."""
        return Exchange(self.phrasing.ask("then_module"), REFUSAL if known is None else module_of(known), known)

    def _topic(self, kind: str) -> str:
        while True:
            word = self.random.choice(words(kind, self.held_out))
            if word.lower() not in known_names():
                return word.lower() if self.random.random() < 0.3 else word

    def _written(self, known: Documented) -> str:
        """Return a name as people write it: without its home only if that is unambiguous."""
        alone = _by_last_name()[known.last_name] is known
        return self._form(known.name, known.home, known.last_name if alone else "")

    def _form(self, name: str, home: str, last: str) -> str:
        drawn = self.random.random()
        if home in ("", "builtins") or "." not in name or drawn < 0.55:
            return name + ("()" if drawn < 0.1 else "")
        if drawn < 0.8 and last:
            return last + ("()" if drawn < 0.6 else "")
        last = name.rpartition(".")[2]
        kind = "method" if home in _TYPE_NAMES else "function"
        return self.random.choice(
            (f"{last} of {home}", f"the {last} {kind} of {home}", f"{last} in {home}", f"{home}'s {last}")
        )


def arguments_of(known: Documented) -> str:
    """Return an answer on which arguments a name takes."""
    if known.arguments is None:
        return f"Python does not say which arguments {known.name} takes."
    count, listed = len(known.arguments), ", ".join(known.arguments[:MAX_ARGUMENTS])
    if not count:
        return f"{known.name} takes no arguments."
    if count > MAX_ARGUMENTS:
        return f"{known.name} takes {count} arguments, first of all {listed}."
    return f"{known.name} takes {count} argument{'s' * (count > 1)}: {listed}."


def argument_of(known: Documented, number: int) -> str:
    """Return an answer on what argument `number`, from 0, is called."""
    if known.arguments is None:
        return "Python does not say which arguments it takes."
    if number < len(known.arguments):
        return f"Its {ORDINALS[number]} argument is {known.arguments[number]}."
    count = len(known.arguments)
    return f"It takes only {count} argument{'s' * (count > 1)}." if count else "It takes no arguments."


def module_of(known: Documented) -> str:
    """Return an answer on where a name is from."""
    if known.home == "builtins":
        return f"{known.name} is built in."
    if known.home in _TYPE_NAMES:
        return f"{known.last_name} is a method of {known.home}, which is built in."
    return f"{known.last_name} is in the module {known.home}."


_TYPE_NAMES = {kind.__name__ for kind in TYPES}


@cache
def _by_last_name() -> dict[str, Documented]:
    """Return what a name without its home means: what is built in, else a method, else a function."""
    return {each.last_name: each for each in reversed(every_documented())}


@cache
def _wishes() -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return what people may want to do, in the words of the documentation, and the names that do it."""
    found: dict[str, list[str]] = {}
    for known in every_documented():
        first, _, rest = known.sentence.rstrip(".").partition(" ")
        verb = first.lower()
        verb = verb if verb in words("verbs") else verb.removesuffix("s")
        if verb in words("verbs") and len(known.sentence) < 80:
            found.setdefault(f"{verb} {rest}", []).append(known.name)
    return tuple((wish, tuple(names)) for wish, names in found.items() if len(names) <= 3)


def _third_person(wish: str) -> str:
    verb, _, rest = wish.partition(" ")
    if verb.endswith(("s", "sh", "ch", "x", "z")):
        verb += "es"
    elif verb.endswith("y") and verb[-2] not in "aeiou":
        verb = verb[:-1] + "ies"
    else:
        verb += "s"
    return f"{verb} {rest}"
