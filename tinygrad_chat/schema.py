"""What a file may contain, declared as type hints and checked in one place: types, ranges, depth, size.

A file may be damaged, from another version or malicious. So there is one way to read JSON or TOML: by the type that
its contents must have. The result has that type; anything else raises a FormatError that names the file and the key
in one short line.

>>> class Outcome(typing.TypedDict):
...     outcome: Literal["finished", "failed"]
...     step: Count
>>> parse_json('{"outcome": "failed", "step": 25}', Outcome, source="outcome.json")
{'outcome': 'failed', 'step': 25}
>>> parse_json('{"outcome": "failed", "step": -1}', Outcome, source="outcome.json")
Traceback (most recent call last):
tinygrad_chat.errors.FormatError: outcome.json: step: expected at least 0, received -1

Types are int, float, str, bool, None, unions and literals of these, `list[T]`, `tuple[T, ...]`, `dict[str, T]`,
dataclasses, TypedDicts, and numbers `Annotated` with Bounds. Numbers must be finite and texts encodable in UTF-8. All
fields of a dataclass must be present, except those with OPTIONAL as metadata. Keys that a type does not declare must
hold plain data; a TypedDict keeps them, a dataclass drops them.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import tomllib
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, is_typeddict

from tinygrad_chat.errors import FormatError
from tinygrad_chat.files import read_plain
from tinygrad_chat.formatting import short_repr
from tinygrad_chat.option import unmet

LARGEST_FILE = 1 << 20  # bytes, unless the caller says otherwise: several hundred times the usual size
MAX_CONTAINERS = 1 << 19  # objects and lists in a file: in memory they take thirty times their size on disk
MAX_DIGITS = 20  # of an integer
OPTIONAL = {"optional": True}  # metadata of a field with a default, which other versions do not write
DEEPEST = 16  # nesting levels of data that no type declares
MAX_KEY_PARTS = 8  # of a dotted key in TOML: the time to parse one is quadratic in them


@dataclass(frozen=True)
class Bounds:
    """The range of a number; an integer is also limited to 2^53."""

    minimum: float | None = None
    maximum: float | None = None


Count = Annotated[int, Bounds(minimum=0)]
Positive = Annotated[int, Bounds(minimum=1)]
Amount = Annotated[float, Bounds(minimum=0)]

T = TypeVar("T")
Check = Callable[[Any], Any]
"""Returns a value as its type requires it, or raises _UnfitError."""


def read_json(
    path: Path, kind: type[T], *, source: str | None = None, most: int = LARGEST_FILE, follow: bool = False
) -> T:
    """Read a JSON file of at most `most` bytes, whose contents must be of type `kind`; messages call it `source`.

    Raises OSError if it cannot be read, as `read_plain` does, and FormatError.
    """
    return parse_json(read_plain(path, most=most, follow=follow), kind, source=source or str(path))


def parse_json(text: bytes | str, kind: type[T], *, source: str) -> T:
    """Parse JSON `text`, whose contents must be of type `kind`. Raises FormatError, naming `source`, for all else."""
    try:
        text = text if isinstance(text, str) else text.decode("utf-8-sig")  # Notepad begins with a byte-order mark
        if text.count("[") + text.count("{") > MAX_CONTAINERS:
            raise FormatError(f"{source}: expected at most {MAX_CONTAINERS:,} objects and lists, received more")
        found = json.loads(text, parse_int=_integer)
    except RecursionError:
        raise FormatError(f"{source}: is nested too deeply") from None
    except ValueError as error:
        raise FormatError(f"{source}: not valid JSON ({error})") from None
    return checked(found, kind, source=source)


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number of {len(digits):,} digits")
    return int(digits)


def parse_lines(lines: Iterable[bytes], kind: type[T], *, source: str) -> Iterator[tuple[bytes, T | FormatError]]:
    """Yield each line of JSON without its line ending, and its contents or what is wrong with it: an invalid line does
    not hide the others."""
    for number, line in enumerate((each.rstrip(b"\r\n") for each in lines), start=1):
        try:
            yield line, parse_json(line, kind, source=f"{source}, line {number}")
        except FormatError as error:
            yield line, error


def parse_toml(text: str, *, source: str) -> dict[str, Any]:
    """Parse TOML `text`; the types and bounds of options are checked by `option.py`.

    Raises FormatError, naming `source`, for invalid TOML, and for text that would take long to parse.
    """
    if len(text) > LARGEST_FILE:
        raise FormatError(f"{source}: expected at most {LARGEST_FILE:,} characters, received {len(text):,}")
    if _LONG_KEY.search(_TEXTS.sub("_", text)):
        raise FormatError(f"{source}: expected keys of at most {MAX_KEY_PARTS} parts, received a longer one")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise FormatError(f"{source}: is nested too deeply") from None
    except tomllib.TOMLDecodeError as error:
        raise FormatError(f"{source}: not valid TOML ({error})") from None
    except ValueError:  # Python's own limit on digits
        raise FormatError(f"{source}: a number has too many digits") from None


_TEXTS = re.compile(
    r"""
    \"{3} (?: \\. | [^\\] )*? (?: \"{3} | \Z ) | '{3} .*? (?: '{3} | \Z )
    | " (?: \\. | [^"\\\n] )*+ "? | ' [^'\n]*+ '? | \# [^\n]*+
    """,
    re.DOTALL | re.VERBOSE,
)
"""Strings and comments in TOML, where a dot does not separate keys."""

_LONG_KEY = re.compile(rf"(?<![\w-])(?:[\w-]++[ \t]*+\.[ \t]*+){{{MAX_KEY_PARTS}}}")


class _UnfitError(Exception):
    """A value that does not fit its type; `keys` are the path to it from where the check began."""

    def __init__(self, message: str, *, expected: str = "", keys: Iterable[str | int] = ()) -> None:
        super().__init__(message)
        self.expected = expected
        self.keys = [*keys]


def _unfit(expected: str, value: Any) -> _UnfitError:
    return _UnfitError(f"expected {expected}, received {_named(value)}", expected=expected)


def _named(value: Any) -> str:
    """Describe a value in JSON's terms."""
    if isinstance(value, dict):
        return "an object" if value else "an empty object"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    return json.dumps(value) if value is None or isinstance(value, bool) else short_repr(value)


def checked(value: Any, kind: type[T], *, source: str) -> T:
    """Return a value read from `source` as its `kind` requires it. Raises FormatError if it does not fit."""
    try:
        return _check_of(kind)(value)
    except _UnfitError as unfit:
        path = "".join(f"[{key}]" if isinstance(key, int) else f".{_key(key)}" for key in unfit.keys).removeprefix(".")
        raise FormatError(": ".join(filter(None, (source, path, str(unfit)))), key=path) from None


def _key(key: str) -> str:
    return key if re.fullmatch(r"[\w./-]{1,60}", key, re.ASCII) else short_repr(key)


@functools.cache
def _check_of(kind: Any) -> Check:
    """Return the check for a type, built once from its hints."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return _check_plain
    if origin is Annotated:
        return functools.partial(_check_bounds, _check_of(arguments[0]), arguments[1])
    if origin is Literal:
        return functools.partial(_check_choice, arguments)
    if origin in (typing.Union, types.UnionType):
        return functools.partial(_check_union, [_check_of(each) for each in arguments])
    if origin in (list, tuple):
        return functools.partial(_check_list, _check_of(arguments[0]), origin)
    if origin is dict:
        return functools.partial(_check_mapping, _check_of(arguments[1]))
    if dataclasses.is_dataclass(kind) or is_typeddict(kind):
        return _object_check(kind)
    return functools.partial(_check_scalar, kind)


_WORDS = {int: "a whole number", float: "a number", str: "a string", bool: "true or false", types.NoneType: "null"}


def _check_scalar(kind: type, value: Any) -> Any:
    if type(value) is float and kind is float and value - value == 0:
        return value  # most values in a log
    fits = type(value) is kind or (kind is float and type(value) is int)
    expected = unmet(value) if fits else _WORDS[kind]
    if expected:
        raise _unfit(expected, value)
    return float(value) if kind is float else value


def _check_bounds(check: Check, bounds: Bounds, value: Any) -> Any:
    value = check(value)
    expected = unmet(value, minimum=bounds.minimum, maximum=bounds.maximum)
    if expected:
        raise _unfit(expected, value)
    return value


def _check_choice(choices: tuple[Any, ...], value: Any) -> Any:
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        raise _unfit(" or ".join(map(str, choices)), value)
    return value


def _check_union(checks: list[Check], value: Any) -> Any:
    wrong = []
    for check in checks:
        try:
            return check(value)
        except _UnfitError as unfit:
            wrong.append(unfit.with_traceback(None))  # the traceback refers to this frame
    for unfit in wrong:
        if unfit.keys:  # the right type, but something in it is wrong
            raise _UnfitError(str(unfit), keys=unfit.keys)
    raise _unfit(" or ".join(unfit.expected for unfit in wrong), value)


def _check_list(check: Check, kind: Callable[[Any], Any], value: Any) -> Any:
    if type(value) is not list:
        raise _unfit("a list", value)
    return kind([_within(index, check, each) for index, each in enumerate(value)])


def _check_mapping(check: Check, value: Any) -> dict[str, Any]:
    if type(value) is not dict:
        raise _unfit("an object", value)
    return {_check_scalar(str, key): _within(key, check, each) for key, each in value.items()}


def _object_check(kind: Any) -> Check:
    """Return the check for a dataclass or a TypedDict."""
    checks = {name: _check_of(hint) for name, hint in typing.get_type_hints(kind, include_extras=True).items()}
    if is_typeddict(kind):
        required = sorted(kind.__required_keys__)
    else:
        required = [each.name for each in dataclasses.fields(kind) if not each.metadata.get("optional")]

    def check(value: Any) -> Any:
        if type(value) is not dict:
            raise _unfit("an object", value)
        missing = [name for name in required if name not in value]
        if missing:
            raise _UnfitError(f"has no {missing[0]}")
        found = {}
        for key, each in value.items():
            known = checks.get(key)
            found[key if known else _check_scalar(str, key)] = _within(key, known or _check_plain, each)
        return found if is_typeddict(kind) else kind(**{name: found[name] for name in checks if name in found})

    return check


def _check_plain(value: Any, depth: int = 0) -> Any:
    """Check data of any form: texts, numbers, and objects and lists of these, not nested too deeply."""
    if not isinstance(value, dict | list):
        return _check_scalar(type(value), value)
    if depth == DEEPEST:
        raise _UnfitError(f"is nested more than {DEEPEST} levels deep")
    check = functools.partial(_check_plain, depth=depth + 1)
    return _check_mapping(check, value) if isinstance(value, dict) else _check_list(check, list, value)


def _within(key: str | int, check: Check, value: Any) -> Any:
    try:
        return check(value)
    except _UnfitError as unfit:
        unfit.keys.insert(0, key)
        raise
