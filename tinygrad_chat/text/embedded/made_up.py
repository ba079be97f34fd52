"""Names that this Python does not document: near misses, real methods of other types, words, and syllables.

A model knows a name from such a one only by the name. So there are many kinds of them, and tasks use others than
training does.
"""

from __future__ import annotations

from collections.abc import Set
from functools import cache
from random import Random

from tinygrad_chat.text.embedded.corpus import is_held_out
from tinygrad_chat.text.embedded.documented import documented
from tinygrad_chat.text.embedded.phrasings import one_letter_wrong, words


@cache
def known_names() -> Set[str]:
    """Return all names that somebody may mean by what is documented, in lower case: `str.split`, and `split`."""
    return {name.lower() for each in documented().values() for name in (each.name, each.last_name, each.home)}


def made_up_name(random: Random, *, held_out: bool = False) -> str:
    """Return a name that is not documented: one that is trained on, or one that only tasks ask about."""
    while True:
        name = _any_name(random)
        if name.lower() not in known_names() and is_held_out(name) == held_out and len(name) > 2:
            return name


def made_up_word(random: Random) -> str:
    """Return one to three syllables."""
    syllables = (
        random.choice(words("starts")) + random.choice(words("vowels")) for _ in range(random.choice((1, 1, 2, 2, 3)))
    )
    end = random.choice(words("ends")) if random.random() < 0.8 else ""
    return "".join(syllables) + end + random.choice(("", "", "", "ate", "ify", "er", "ing", "le"))


def _any_name(random: Random) -> str:
    real = random.choice(tuple(documented().values()))
    home = random.choice(_homes())
    kind = random.random()
    if kind < 0.20 and len(real.last_name) > 2:  # math.sqare
        before = real.name[: -len(real.last_name)]
        return before + one_letter_wrong(real.last_name, random)
    if kind < 0.48:  # dict.split
        return f"{home}.{real.last_name}"
    if kind < 0.58:  # str.frobnicate
        return f"{home}.{made_up_word(random)}"
    if kind < 0.69:  # list.sorted
        return f"{home}.{_word(random)}"
    if kind < 0.84:  # str.splitter, get_append
        joint, last = random.choice(("", "_")), real.last_name
        longer = f"{last}{joint}{random.choice(words('after'))}", f"{random.choice(words('before'))}{joint}{last}"
        changed = random.choice(longer)
        return random.choice((f"{real.home}.{changed}", changed)) if real.home != "builtins" else changed
    if kind < 0.93:
        return random.choice((made_up_word(random), _word(random)))
    outer = random.choice((made_up_word(random), _word(random)))
    return f"{outer}.{random.choice((made_up_word(random), _word(random), real.last_name))}"


@cache
def _homes() -> tuple[str, ...]:
    return tuple(sorted({each.home for each in documented().values()} - {"builtins"}))


def _word(random: Random) -> str:
    word = random.choice(words("made_up"))
    return word if random.random() < 0.6 else f"{word}_{random.choice(words('made_up'))}"
