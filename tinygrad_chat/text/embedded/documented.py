"""The names that this Python documents: what each does in a sentence, and the arguments that it takes.

Nothing is stored with the package; another version of Python may have other names and other texts.
"""

from __future__ import annotations

import builtins
import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

TYPES = (str, list, dict, set, tuple, int, float)
MODULES = ("math", "os.path", "json", "re", "itertools", "functools", "collections", "copy")
FEW_OF = {
    "random": "choice choices gauss getrandbits randbytes randint random randrange sample seed shuffle uniform",
    "statistics": "correlation fmean geometric_mean harmonic_mean mean median mode multimode pstdev stdev variance",
    "time": "ctime gmtime localtime mktime monotonic perf_counter process_time sleep strftime strptime time time_ns",
    "os": "chdir cpu_count getcwd getenv getpid kill listdir makedirs mkdir remove rename replace rmdir system urandom",
    "sys": "exit getrecursionlimit getrefcount getsizeof intern setrecursionlimit",
}
"""Of these modules, only the functions that people often ask about."""

LONGEST_SENTENCE = 115  # characters
CALL = re.compile(r"[\w.]+\(.*?\)\s*(?:-+>|--|=)\s*(.*)|[\w.]+\(.*\)$")  # a first line such as `len(obj) -> int`
RESULT = re.compile(r"^\w+(?: \w+)?\s*(?:,|\.(?=\s)|--)\s*")
ABBREVIATED = ("e.g.", "i.e.", "eg.", "a.k.a.", "etc.")


@dataclass(frozen=True)
class Documented:
    """A name such as `str.split`; its `home`, `str`; the `sentence` that says what it does; its `arguments`, or None if
    Python does not tell them."""

    name: str
    home: str
    sentence: str
    arguments: tuple[str, ...] | None

    @property
    def last_name(self) -> str:
        """The name without its home: `split`."""
        return self.name.rpartition(".")[2]


@cache
def documented() -> dict[str, Documented]:
    """Return what this Python documents, by name, in a fixed order: some 400 names."""
    found: dict[str, Documented] = {}
    for home, name, thing in _things():
        sentence = first_sentence(thing.__doc__ or "")
        if sentence and name not in found:
            found[name] = Documented(name, home, sentence, _arguments(thing, skip_first=home in _TYPE_NAMES))
    return found


@cache
def every_documented() -> tuple[Documented, ...]:
    """Return the values of `documented`."""
    return tuple(documented().values())


def first_sentence(doc: str) -> str:
    """Return the first sentence of a docstring, without markup; '' if there is none of suitable length.

    >>> first_sentence("S.find(sub) -> int\\n\\nReturn the *lowest* index in S.  Or say so.")
    'Return the lowest index in S.'
    """
    lines = inspect.cleandoc(doc).splitlines()
    while lines and (call := CALL.match(lines[0])):
        said = RESULT.sub("", call[1] or "")
        lines = [said, *lines[1:]] if said.count(" ") > 3 else lines[1:]
    paragraph = "\n".join(lines).strip().split("\n\n")[0]
    text = " ".join(re.sub(r"`|(?<!\w)\*{1,2}(?=\w)|(?<=\w)\*{1,2}(?!\w)", "", paragraph).split())
    for ends in (r"[.:]", r";"):
        for end in re.finditer(rf"{ends}(?=\s|$)|(?<![.:;])$", text):
            sentence = text[: end.start()]
            if sentence.count("(") == sentence.count(")") and not text[: end.end()].endswith(ABBREVIATED):
                break
        else:
            continue
        if 8 <= len(sentence) < LONGEST_SENTENCE and sentence.isascii() and re.match(r"[A-Za-z](?!\w*\()", sentence):
            return sentence[0].upper() + sentence[1:] + "."
    return ""


_TYPE_NAMES = {kind.__name__ for kind in TYPES}


def _things() -> Iterator[tuple[str, str, Any]]:
    """Yield the home of each thing, its name, and the thing itself."""
    for name, thing in vars(builtins).items():
        ours = (
            getattr(thing, "__module__", None) in ("builtins", "io", "_io") and getattr(thing, "__name__", None) == name
        )
        rare = isinstance(thing, type) and issubclass(thing, OSError | Warning) and thing is not OSError
        if callable(thing) and ours and not name.startswith("_") and not rare:
            yield "builtins", name, thing
    for kind in TYPES:
        for name in vars(kind):
            if not name.startswith("_"):
                yield kind.__name__, f"{kind.__name__}.{name}", getattr(kind, name)
    for module, names in {**dict.fromkeys(MODULES, ""), **FEW_OF}.items():
        imported = importlib.import_module(module)
        for name in names.split() or _public_names(imported):
            thing = getattr(imported, name, None)
            if callable(thing):
                yield module, f"{module}.{name}", thing


def _public_names(module: Any) -> list[str]:
    return sorted(getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")])


def _arguments(thing: Any, *, skip_first: bool) -> tuple[str, ...] | None:
    try:
        names = [
            {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}.get(each.kind, "") + each.name
            for each in inspect.signature(thing).parameters.values()
        ]
    except (TypeError, ValueError):
        return None
    return tuple(names[1:] if skip_first and names[:1] == ["self"] else names)
