"""Endlessly many words to spell: from Python's documentation, and made of their parts.

A model that has spelled many words knows the letters of every token that a word may consist of. So most words here are
made up: of parts of real ones, whose tokens then stand next to many others, of syllables, and of random letters.
"""

from __future__ import annotations

import re
from functools import cache
from pydoc_data.topics import topics
from random import Random
from string import ascii_lowercase

from tinygrad_chat.text.embedded.corpus import is_held_out
from tinygrad_chat.text.embedded.made_up import made_up_word

SHORTEST, LONGEST = 3, 12
REAL, CAPITALS = 0.3, 0.1
"""Shares of words that are real, and that begin with a capital."""

PART = (2, 5)
"""How many letters a part of a real word has, at least and at most."""

COMMON = (
    "apple banana cherry orange lemon mango melon peach grape strawberry blueberry raspberry pineapple tomato potato "
    "carrot onion pepper garlic cucumber spinach broccoli bread butter cheese yogurt chocolate coffee sugar honey "
    "elephant giraffe monkey tiger lion zebra rabbit squirrel dolphin penguin eagle parrot spider butterfly dinosaur "
    "horse chicken turtle crocodile kangaroo house garden kitchen window door table chair bottle mirror ladder "
    "mountain river ocean island forest desert valley thunder lightning rainbow winter summer autumn spring morning "
    "evening tomorrow yesterday school teacher pencil paper book library music guitar piano violin football tennis "
    "doctor nurse farmer pilot engineer scientist president mother father brother sister friend family neighbour "
    "beautiful happy angry tired hungry strange wonderful difficult important necessary separate rhythm yellow purple "
    "orange green silver golden twelve hundred thousand million bicycle airplane rocket train engine computer keyboard "
    "hello goodbye please thanks people world country city village street bridge castle kingdom mississippi"
)


@cache
def real_words(held_out: bool) -> tuple[str, ...]:
    """Return the real words that are trained on, or those that only tasks ask for, in alphabetical order."""
    written = " ".join(topics.values()) + " " + COMMON
    found = {word for word in re.findall(r"[a-z]+", written.lower()) if SHORTEST <= len(word) <= LONGEST}
    return tuple(sorted(word for word in found if is_held_out(word) == held_out))


def any_word(random: Random, *, held_out: bool = False) -> str:
    """Return a word to spell, now and then with a capital: real or made up, of those trained on or `held_out`."""
    word = random.choice(real_words(held_out)) if random.random() < REAL else made_of_parts(random, held_out=held_out)
    return word.capitalize() if random.random() < CAPITALS else word


def made_of_parts(random: Random, *, held_out: bool = False) -> str:
    """Return a made-up word: of parts of real ones, of syllables, or of letters drawn at random."""
    kind = random.choices((_of_real_ones, made_up_word, _of_letters), (9, 3, 2))[0]
    while True:
        word = kind(random)
        if len(word) <= LONGEST and is_held_out(word) == held_out:
            return word


def _of_real_ones(random: Random) -> str:
    return "".join(_part(random) for _ in range(random.choice((1, 2, 2, 3))))


def _of_letters(random: Random) -> str:
    return "".join(random.choices(ascii_lowercase, k=random.randint(2, 8)))


def _part(random: Random) -> str:
    word = random.choice(real_words(False))
    start = random.choice((0, random.randrange(len(word))))
    return word[start : start + random.randint(*PART)]
