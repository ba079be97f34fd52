"""Finds the files that `--data` names: a file, a pattern's matches or a folder's files; and lists those left out."""

from __future__ import annotations

import fnmatch
import glob
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes

from tinygrad_chat.errors import DataError
from tinygrad_chat.files import (
    UnfitFileError,
    expect_plain,
    is_folder,
    is_run,
    is_there,
    list_folder,
    status_of,
    user_path,
)
from tinygrad_chat.formatting import count, printable

FILE_ADDRESS = "file://"
HIDDEN, OF_A_RUN, LINK, NO_FILE, TWICE = "hidden", "run", "linked folder", "no file", "named twice"
UNREADABLE = "cannot be read"
MAX_KINDS = 4  # named in a line
MAX_NAMES = 3


@dataclass(frozen=True)
class LeftOut:
    """A file or a whole folder that is not read, and why."""

    path: Path
    reason: str


def path_of(data: str) -> Path:
    """Return the path that `--data` names, as such or as a file URL, which can hold a name that is not UTF-8."""
    if data.startswith(FILE_ADDRESS):
        return Path(os.fsdecode(unquote_to_bytes(data.removeprefix(FILE_ADDRESS))))
    return user_path(data)


def storable(data: str) -> str:
    """Return `data` as a name that can be stored as UTF-8: as a file URL if need be.

    >>> storable("notes.txt"), storable(os.fsdecode(b"/caf\\xe9.txt"))
    ('notes.txt', 'file:///caf%E9.txt')
    """
    try:
        data.encode()
    except UnicodeEncodeError:
        return user_path(data).absolute().as_uri()
    return data


def find_files(data: str) -> tuple[list[Path] | Path | None, list[LeftOut]]:
    """Return the files in a folder or of a pattern, in order, or a file's path, or None; and what is left out.

    Only what can be told without reading contents is left out here. Raises DataError if the path cannot be read, or is
    neither a file nor a folder.
    """
    path = path_of(data)
    left_out: list[LeftOut] = []
    try:
        if is_folder(path, follow=True):
            if holds_run(path):
                raise DataError(f"--data {data}: is a run's folder, not text; name another folder, or its samples/")
            return list(_files_below(path, left_out)), left_out
        if is_there(path, follow=True):
            expect_plain(path, follow=True)
            return path, left_out
        if glob.has_magic(str(path)):
            found: list[Path] = []
            for match in _matches(Path(path.anchor), path.parts[bool(path.anchor) :], left_out):
                found += _files_of(match, left_out)
            return found, list(dict.fromkeys(left_out))  # ** visits some folders twice
    except UnfitFileError as error:
        raise DataError(
            f"--data {data}: {error.strerror}; pipe a program's output in, as in: ... | tgc train --data -"
        ) from error
    except OSError as error:
        raise DataError(
            f"--data {data}: cannot be read ({error.strerror}); change its permissions, or leave it out"
        ) from error
    return None, left_out


def holds_run(folder: Path) -> bool:
    """Return whether a folder is that of a run or an ablation, whose files are not text to train on."""
    return is_run(folder) or (is_there(folder / "ablation.json") and is_folder(folder / "runs"))


def describe_left_out(left_out: Iterable[LeftOut]) -> str:
    """Summarise what was left out, by reason and kind; empty if nothing was.

    >>> describe_left_out([LeftOut(Path(name), "no text") for name in ("a.png", "b.PNG", "c")])
    '2 .png, 1 other (no text)'
    """
    kinds: dict[str, Counter[str]] = {}
    unreadable: list[str] = []
    for each in left_out:
        if each.reason == UNREADABLE:
            unreadable.append(str(each.path))
        else:
            kinds.setdefault(each.reason, Counter())[printable(each.path.suffix.lower())[:12] or "other"] += 1
    described = [_described(reason, found) for reason, found in kinds.items()]
    if unreadable:
        names = printable(", ".join(unreadable[:MAX_NAMES])) + ", ..." * (len(unreadable) > MAX_NAMES)
        described.insert(0, f"{len(unreadable):,} that cannot be read ({names})")
    return "; ".join(described)


def _described(reason: str, kinds: Counter[str]) -> str:
    if reason in (OF_A_RUN, LINK):
        return count(kinds.total(), reason)
    return f"{kinds.total():,} {reason}" if reason == HIDDEN else f"{_counted(kinds)} ({reason})"


def _counted(kinds: Counter[str]) -> str:
    most = kinds.most_common(MAX_KINDS)
    rest = kinds.total() - sum(number for _, number in most)
    return ", ".join(f"{number:,} {kind}" for kind, number in [*most, *([("of other kinds", rest)] if rest else [])])


@contextmanager
def _noted(path: Path, left_out: list[LeftOut]) -> Iterator[None]:
    """Leave out what turns out to be unreadable. The walk goes on, and the user is told."""
    try:
        yield
    except OSError:
        left_out.append(LeftOut(path, UNREADABLE))


def _files_of(path: Path, left_out: list[LeftOut]) -> Iterator[Path]:
    """Yield a pattern's match if it is a file, or the files below it if it is a folder."""
    with _noted(path, left_out):
        if is_folder(path, follow=True) and not holds_run(path):
            yield from _files_below(path, left_out)
        elif lack := _lack(path):
            left_out.append(LeftOut(path, lack))
        else:
            yield path


def _files_below(folder: Path, left_out: list[LeftOut]) -> Iterator[Path]:
    """Yield the files below a folder, sorted by name. Raises OSError if the folder cannot be read."""
    waiting = _listed(folder)
    while waiting:
        path = waiting.pop()
        with _noted(path, left_out):
            if path.name.startswith("."):
                left_out.append(LeftOut(path, HIDDEN))
            elif path.is_symlink() and is_folder(path, follow=True):
                left_out.append(LeftOut(path, LINK))
            elif is_folder(path) and not holds_run(path):
                waiting += _listed(path)
            elif lack := _lack(path):
                left_out.append(LeftOut(path, lack))
            else:
                yield path


def _lack(path: Path) -> str:
    """Return why something is not a readable file; empty if it is one."""
    status = status_of(path, follow=True)
    if status is not None and stat.S_ISDIR(status.st_mode):
        return OF_A_RUN
    if status is None or not stat.S_ISREG(status.st_mode):
        return NO_FILE
    return "" if os.access(path, os.R_OK) else UNREADABLE


def _listed(folder: Path) -> list[Path]:
    """Return what a folder holds, the last name first."""
    return list_folder(folder, follow=True)[::-1]


def _matches(folder: Path, parts: tuple[str, ...], left_out: list[LeftOut]) -> Iterator[Path]:
    """Yield the matches of a pattern's parts below a folder; ** stands for any folders but hidden ones."""
    if not parts:
        yield folder
        return
    first, rest = parts[0], parts[1:]
    if first == "**":
        yield from _matches(folder, rest, left_out)
    with _noted(folder, left_out):
        if not glob.has_magic(first):
            if is_there(folder / first):
                yield from _matches(folder / first, rest, left_out)
            return
        for inner in list_folder(folder, follow=True):
            with _noted(inner, left_out):
                if first == "**":
                    if is_folder(inner) and not inner.name.startswith("."):
                        yield from _matches(inner, parts, left_out)
                elif _fits(inner.name, first) and (not rest or is_folder(inner, follow=True)):
                    yield from _matches(inner, rest, left_out)


def _fits(name: str, pattern: str) -> bool:
    shown = not name.startswith(".") or pattern.startswith(".")
    return shown and fnmatch.fnmatchcase(name, pattern)
