"""Which files `--data` names: itself, what a pattern fits, what a folder holds. What is passed over is said."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes

from tinygrad_chat.errors import DataError
from tinygrad_chat.files import user_path
from tinygrad_chat.formatting import count, printable

FILE_ADDRESS = "file://"
HIDDEN, OF_A_RUN, LINK, NO_FILE, TWICE = "hidden", "run", "linked folder", "no file", "named twice"
MOST_KINDS = 4  # that a line names


@dataclass(frozen=True)
class LeftOut:
    """A file or a whole folder that is not read, and why."""

    path: Path
    reason: str


def path_of(data: str) -> Path:
    """Return the path that `--data` names, as such or as a file address, which can hold a name that is no UTF-8."""
    if data.startswith(FILE_ADDRESS):
        return Path(os.fsdecode(unquote_to_bytes(data.removeprefix(FILE_ADDRESS))))
    return user_path(data)


def storable(data: str) -> str:
    """Return a name that a file in UTF-8 can hold: where `data` is none itself, as a file address.

    >>> storable("notes.txt"), storable(os.fsdecode(b"/caf\\xe9.txt"))
    ('notes.txt', 'file:///caf%E9.txt')
    """
    try:
        data.encode()
    except UnicodeEncodeError:
        return user_path(data).absolute().as_uri()
    return data


def find_files(data: str) -> tuple[list[Path] | Path | None, list[LeftOut]]:
    """Return the files that a folder or a pattern holds, in order, or a file's path, or None where there is nothing;
    and what lies among them that is no file to be read, whatever is in it.

    Raises DataError where a folder cannot be looked into.
    """
    path = path_of(data)
    left_out: list[LeftOut] = []
    try:
        if path.is_dir():
            if holds_run(path):
                raise DataError(f"--data {data}: is a run's folder, not text; name one beside it, or its samples/")
            return list(_files_below(path, left_out)), left_out
        if path.exists():
            return path, left_out
        if glob.has_magic(str(path)):
            found: list[Path] = []
            for match in _matches(Path(path.anchor), path.parts[bool(path.anchor) :]):
                found += _files_of(match, left_out)
            return found, left_out
    except OSError as error:
        raise DataError(
            f"{error.filename or path}: cannot be read ({error.strerror}); change its permissions, or take it away"
        ) from error
    return None, left_out


def holds_run(folder: Path) -> bool:
    """Return whether a run, or an ablation, has its folder there: what it writes is no text to learn from."""
    run = (folder / "checkpoints").is_dir() and any((folder / name).is_file() for name in ("log.jsonl", "config.toml"))
    return run or ((folder / "ablation.json").is_file() and (folder / "runs").is_dir())


def describe_left_out(left_out: Iterable[LeftOut]) -> str:
    """Return what was left out in a few words, by reason and kind; empty where nothing was.

    >>> describe_left_out([LeftOut(Path(name), "no text") for name in ("a.png", "b.PNG", "c")])
    '2 .png, 1 other (no text)'
    """
    kinds: dict[str, Counter[str]] = {}
    for each in left_out:
        kinds.setdefault(each.reason, Counter())[printable(each.path.suffix.lower())[:12] or "other"] += 1
    return "; ".join(_described(reason, found) for reason, found in kinds.items())


def _described(reason: str, kinds: Counter[str]) -> str:
    if reason in (OF_A_RUN, LINK):
        return count(kinds.total(), reason)
    return f"{kinds.total():,} {reason}" if reason == HIDDEN else f"{_counted(kinds)} ({reason})"


def _counted(kinds: Counter[str]) -> str:
    most = kinds.most_common(MOST_KINDS)
    rest = kinds.total() - sum(number for _, number in most)
    return ", ".join(f"{number:,} {kind}" for kind, number in [*most, *([("of other kinds", rest)] if rest else [])])


def _files_below(folder: Path, left_out: list[LeftOut]) -> Iterator[Path]:
    """Yield the files of a folder and those below it, by name."""
    waiting = _listed(folder)
    while waiting:
        path = waiting.pop()
        if path.name.startswith("."):
            left_out.append(LeftOut(path, HIDDEN))
        elif path.is_dir() and path.is_symlink():
            left_out.append(LeftOut(path, LINK))
        elif path.is_dir() and not holds_run(path):
            waiting += _listed(path)
        else:
            yield from _files_of(path, left_out)


def _files_of(path: Path, left_out: list[LeftOut]) -> Iterator[Path]:
    """Yield a file, or those of a folder that a pattern fits."""
    if path.is_dir() and holds_run(path):
        left_out.append(LeftOut(path, OF_A_RUN))
    elif path.is_dir():
        yield from _files_below(path, left_out)
    elif path.is_file():
        yield path
    else:
        left_out.append(LeftOut(path, NO_FILE))


def _listed(folder: Path) -> list[Path]:
    """Return what a folder holds, the last name first. `Path.glob` would pass over a folder that cannot be read."""
    with os.scandir(folder) as entries:
        return sorted((folder / entry.name for entry in entries), reverse=True)


def _matches(folder: Path, parts: tuple[str, ...]) -> Iterator[Path]:
    """Yield what a pattern's parts fit below a folder; ** stands for any folders, and hidden ones are not meant."""
    if not parts:
        yield folder
    elif parts[0] == "**":
        yield from _matches(folder, parts[1:])
        for inner in reversed(_listed(folder)):
            if inner.is_dir() and not inner.is_symlink() and not inner.name.startswith("."):
                yield from _matches(inner, parts)
    elif glob.has_magic(parts[0]):
        for inner in reversed(_listed(folder)):
            shown = not inner.name.startswith(".") or parts[0].startswith(".")
            if shown and fnmatch.fnmatchcase(inner.name, parts[0]) and (len(parts) == 1 or inner.is_dir()):
                yield from _matches(inner, parts[1:])
    elif os.path.lexists(folder / parts[0]):
        yield from _matches(folder / parts[0], parts[1:])
