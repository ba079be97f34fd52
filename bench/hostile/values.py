"""Values that nobody expects, by type; and trees of JSON or TOML with one of them somewhere inside."""

from __future__ import annotations

import copy
import json
import math
import random
import re
import struct
from typing import Any

import tomli_w

# Some commands write where they are told: no path here leads further than to the folder around a try's.
STRINGS = (
    *("", " ", "\x00", "a\nb", "\r", "-", "--help", "null", "nan", "1e999", "../../outside/victim.txt", "outside"),
    *("outside/zero", "outside/pipe", "~no-such-user/x", "{}", "{:>1900000000}", "{foo}", "%s%n", "[bold]", "[/]"),
    *("\x1b]0;title\x07", "\x1b]52;c;aGk=\x07", "\x1bP+q\x1b\\", "\x9b31m", "\u202egnp.exe", "\u2066", "\ud800"),
    *("; touch OWNED", "$(touch OWNED)", "a;touch${IFS}OWNED", "`touch OWNED`", "<script>alert(1)</script>", "|"),
    *("x" * 300, "ä" * 5000, "\n" * 1000, "z" * 1_000_000, "\U0001f980" * 70, "\uff10\uff11", "1_000", "0x10", "True"),
)
INTEGERS = (0, -1, 1, 2, 7, 255, 65536, 10**5, 2**31, 2**53, 2**53 + 1, 2**63, 2**64, -(2**63), 10**12, 10**30, 10**400)
FLOATS = (0.0, -0.0, 0.5, -1.0, 1e-320, 1e299, 1.7e308, -1e299, 3e38, math.nan, math.inf, -math.inf)

UNREADABLE = (
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    struct.error,
)
"""What reading a file raises that an earlier change has broken."""

_RAW = re.compile(r'"@raw:(\w+)@"')
_WRITTEN = {"digits": "9" * 5000, "deep": "[" * 100_000, "brackets": "[" * 950 + "]" * 950, "objects": '{"a":' * 950}
"""What no writer writes, by the names that stand for it until a tree is text."""


def hostile_value(chance: random.Random) -> Any:
    """Return a value of any type that may break whoever reads it."""
    kinds: list[Any] = [
        *(lambda each=each: chance.choice(each) for each in (STRINGS, INTEGERS, FLOATS)),
        lambda: chance.choice([None, True, False, [], {}, [[]], [None], {"": None}, [1, "a"]]),
        lambda: f"@raw:{chance.choice(list(_WRITTEN))}@",
        lambda: [0] * chance.choice([1, 1000, 100_000]),
        lambda: {f"k{number}": number for number in range(chance.choice([1, 50_000]))},
    ]
    return chance.choices(kinds, [4, 4, 3, 3, 1, 1, 1])[0]()


def like(value: Any, chance: random.Random) -> Any:
    """Return another value in the place of one: most often of its type."""
    if chance.random() < 0.4:
        return hostile_value(chance)
    match value:
        case bool():
            return chance.choice([not value, int(value), str(value)])
        case int():
            return chance.choice([value + 1, value - 1, -value, value * 1000, float(value), str(value), *INTEGERS])
        case float():
            return chance.choice([-value, int(value) if math.isfinite(value) else 0, str(value), *FLOATS])
        case str():
            return chance.choice([value.upper(), value + "x", value[:-1], value * 1000, *STRINGS])
        case list():
            some = chance.choice(value) if value else None
            return chance.choice(
                [value[:-1], [*value, some], value * 100, [value], value[::-1], dict(enumerate(value))]
            )
        case dict():
            return chance.choice([{}, list(value), list(value.values()), {"": value}])
        case _:
            return hostile_value(chance)


def changed(tree: Any, chance: random.Random) -> Any:
    """Return a copy of a tree of dictionaries and lists in which one place is another value, is gone, or is new."""
    tree = copy.deepcopy(tree)
    places = list(_places(tree))
    if not places or chance.random() < 0.04:
        return like(tree, chance)
    parent, key = chance.choice(places)
    what = chance.random()
    if what < 0.75:
        parent[key] = like(parent[key], chance)
    elif what < 0.87:
        del parent[key]
    elif isinstance(parent, dict):
        parent[chance.choice(STRINGS)] = parent.pop(key) if chance.random() < 0.5 else hostile_value(chance)
    else:
        parent.insert(key, hostile_value(chance))
    return tree


def _places(tree: Any) -> Any:
    """Yield every place of a tree: what holds it, and its key there."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield tree, key
        yield from _places(value)


def json_bytes(tree: Any, *, indent: int | None = None) -> bytes:
    """Return a tree as JSON, NaN and lone surrogates included."""
    return _with_raw(json.dumps(tree, indent=indent)).encode()


def toml_bytes(tree: Any) -> bytes:
    """Return a tree as TOML; what TOML does not know stands there as JSON has it."""
    try:
        text = tomli_w.dumps(tree)
    except (TypeError, AttributeError, ValueError):
        text = "\n".join(f"{json.dumps(str(key))} = {json.dumps(value)}" for key, value in _pairs(tree))
    return _with_raw(text).encode(errors="surrogatepass")


def _pairs(tree: Any) -> Any:
    return tree.items() if isinstance(tree, dict) else [("a", tree)]


def _with_raw(text: str) -> str:
    return _RAW.sub(lambda match: _WRITTEN[match[1]], text)
