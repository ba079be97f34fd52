"""Names that this Python does not document: near misses, real methods of other types, words, and syllables.

A model can tell a real name from these only by the name. So there are many kinds of them, and tasks use other names
than training does.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from functools import cache
from random import Random

from tinygrad_chat.text.embedded.corpus import is_held_out
from tinygrad_chat.text.embedded.documented import documented, every_documented
from tinygrad_chat.text.embedded.phrasings import one_letter_wrong, words

KINDS = ("one letter wrong", "from elsewhere", "syllables", "a word", "longer", "alone", "of something made up")
"""math.sqare; dict.split; str.frobnicate; list.sorted; str.splitter, get_append; frobnicate; apple.split"""

ASKED = (15, 15, 18, 15, 12, 12, 13)
TRAINED = (20, 28, 10, 11, 15, 9, 7)
"""How often each kind is asked by tasks, and trained on: more often those that are hard to tell from real names."""


@cache
def known_names() -> Set[str]:
    """Return all names by which people may refer to what is documented, in lower case: `str.split`, and `split`."""
    return {name.lower() for each in documented().values() for name in (each.name, each.last_name, each.home)}


def made_up_name(random: Random, *, held_out: bool = False) -> str:
    """Return a name that is not documented: one that is trained on, or one that only tasks ask about."""
    while True:
        name = _any_name(random, ASKED if held_out else TRAINED)
        if name.lower() not in known_names() and is_held_out(name) == held_out and len(name) > 2:
            return name


def made_up_word(random: Random) -> str:
    """Return one to three syllables."""
    syllables = (
        random.choice(words("starts")) + random.choice(words("vowels")) for _ in range(random.choice((1, 1, 2, 2, 3)))
    )
    end = random.choice(words("ends")) if random.random() < 0.8 else ""
    return "".join(syllables) + end + random.choice(("", "", "", "ate", "ify", "er", "ing", "le"))


def _any_name(random: Random, shares: Sequence[int]) -> str:
    (kind,) = random.choices(KINDS, shares)
    real, home = random.choice(every_documented()), random.choice(_homes())
    if kind == "one letter wrong" and len(real.last_name) > 2:
        return real.name[: -len(real.last_name)] + one_letter_wrong(real.last_name, random)
    if kind == "from elsewhere":
        return f"{home}.{real.last_name}"
    if kind == "syllables":
        return f"{home}.{made_up_word(random)}"
    if kind == "a word":
        return f"{home}.{_word(random)}"
    if kind == "longer":
        joint, last = random.choice(("", "_")), real.last_name
        longer = f"{last}{joint}{random.choice(words('after'))}", f"{random.choice(words('before'))}{joint}{last}"
        changed = random.choice(longer)
        return random.choice((f"{real.home}.{changed}", changed)) if real.home != "builtins" else changed
    if kind == "alone":
        return random.choice((made_up_word(random), _word(random)))
    outer = random.choice((made_up_word(random), _word(random)))
    return f"{outer}.{random.choice((made_up_word(random), _word(random), real.last_name))}"


@cache
def _homes() -> tuple[str, ...]:
    return tuple(sorted({each.home for each in documented().values()} - {"builtins"}))


def _word(random: Random) -> str:
    word = random.choice(words("made_up"))
    return word if random.random() < 0.6 else f"{word}_{random.choice(words('made_up'))}"
