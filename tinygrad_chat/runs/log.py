"""A run's log and timing files: appended line by line, and checked when the run is resumed.

A checkpoint records how many lines each of the two files held, and their digest, so that lost, changed or repeated
lines are noticed. A damaged file is kept aside as it was found; the run continues with the lines that are intact, and
one that says what is wrong.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from tinygrad_chat.errors import FormatError
from tinygrad_chat.files import explained, fsync_file, is_there, keep_aside, open_plain, status_of, write_atomic
from tinygrad_chat.formatting import count
from tinygrad_chat.runs.records import Line, log_lines
from tinygrad_chat.schema import Count, parse_json

Record = Mapping[str, object]


@dataclass(frozen=True)
class Mark:
    """What a file of lines holds at a checkpoint: its first `lines` lines, with their digest, `then` rollback records.

    The checkpoint with this mark is on disk before the file is cut and those records are added.
    """

    lines: Count
    sha256: str
    then: tuple[Line, ...] = ()


Marks = Mapping[str, Mark]
"""file name -> its mark; empty in a checkpoint of an earlier version"""


class RunLog:
    """The log and timing files of a run, which get their lines in pairs."""

    def __init__(self, log: Path, timing: Path) -> None:
        self._files = (_Lines(log), _Lines(timing))

    def move(self, log: Path, timing: Path) -> None:
        """Continue at the new paths of the two files."""
        for file, path in zip(self._files, (log, timing), strict=True):
            file.path = path

    def append(self, record: Record, timing: Record) -> None:
        """Append a line to the log, and one to the timing."""
        for file, each in zip(self._files, (record, timing), strict=True):
            file.append(each)

    def fsync(self) -> None:
        """Flush both to disk, so that no checkpoint survives a crash that loses the lines before it."""
        for file in self._files:
            if is_there(file.path):
                fsync_file(file.path)

    def marks(self) -> Marks:
        """Return what both hold now, for a checkpoint."""
        return {file.path.name: file.mark() for file in self._files}

    def marks_of_rollback(self, marks: Marks, step: int, record: Record, timing: Record) -> Marks:
        """Return what both must hold after a rollback to the checkpoint of `step`, which has these `marks`: their lines
        at that checkpoint, those of earlier rollbacks to it, and one new line each."""
        return {
            file.path.name: file.mark_of_rollback(marks.get(file.path.name), step, each)
            for file, each in zip(self._files, (record, timing), strict=True)
        }

    def problems(self, marks: Marks | None, step: int) -> list[str]:
        """Return what is wrong with the files, in a line each, if the run resumes from a checkpoint of `step` with
        these `marks`, or without a checkpoint. Raises StorageError if one cannot be read."""
        return [found.explain() for found in self._compare(marks, step) if found.problem]

    def go_on(self, marks: Marks | None, step: int) -> bool:
        """Cut both where a checkpoint of `step` with these `marks` was saved; return whether they were damaged.

        Later lines will be written again. Raises StorageError if one cannot be read.
        """
        found = self._compare(marks, step)
        for file, each in zip(self._files, found, strict=True):
            file.go_on(each, step)
        return any(each.problem for each in found)

    def _compare(self, marks: Marks | None, step: int) -> list[_Found]:
        found = [file.compare(marks, step) for file in self._files]
        steps = [{record["step"] for _, record in _records(each.lines)} for each in found]
        for each, mine, beside in zip(found, steps, reversed(steps), strict=True):
            gap = sorted(beside - mine)
            if each.missing and each.missing == len(gap):
                each.problem += f": {_steps(gap)}"
        return found


@dataclass
class _Found:
    """The `raw` lines of a file (None without a file), the `lines` to keep, and the `problem`, if any."""

    path: Path
    raw: list[bytes] | None
    lines: list[bytes]
    then: list[bytes] = field(default_factory=list)
    problem: str = ""
    missing: int = 0
    incomplete: bool = False

    def explain(self) -> str:
        kept = f"; resuming keeps this file as {_aside(self.path).name}" if self.raw else ""
        return f"{self.path}: {self.problem}{kept}"


class _Lines:
    """A JSON Lines file whose every line belongs to a step."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._count, self._digest = 0, hashlib.sha256()

    def append(self, record: Record) -> None:
        line = _line(record)
        with explained(self.path), open_plain(self.path, "ab") as stream:
            stream.write(line)
        self._count += 1
        self._digest.update(line)

    def mark(self) -> Mark:
        return Mark(self._count, self._digest.hexdigest())

    def mark_of_rollback(self, mark: Mark | None, step: int, record: Record) -> Mark:
        lines = _split(self._read())
        mark = mark or _mark_of([line for line, found in _records(lines) if found["step"] < step])
        before = [found for _, found in _records(lines[mark.lines :]) if _tells_of_rollback(found, step)]
        return Mark(mark.lines, mark.sha256, (*mark.then, *before, cast(Line, record)))

    def compare(self, marks: Marks | None, step: int) -> _Found:
        raw = self._read()
        lines = _split(raw)
        if marks is None:
            problem = f"has {count(len(lines), 'line')}, but there is no checkpoint" if lines else ""
            return _Found(self.path, raw, [], problem=problem)
        mark = marks.get(self.path.name)
        if mark is None:
            return _Found(self.path, raw, [line for line, found in _records(lines) if found["step"] < step])
        found = _Found(self.path, raw, lines[: mark.lines], [_line(record) for record in mark.then])
        if _is_of(mark, found.lines):
            return found
        found.lines = list(_each_once(lines, step))
        expected = f"its {count(mark.lines, 'line')} up to step {step}"
        found.incomplete = not _is_of(mark, found.lines)
        if not found.incomplete:
            found.problem = f"has extra lines among {expected}, which are all there"
        elif raw is None:
            found.problem = f"is missing, and so are {expected}"
        elif len(found.lines) < mark.lines:
            found.missing = mark.lines - len(found.lines)
            found.problem = f"{found.missing} of {expected} are missing"
        else:
            found.problem = f"{expected} are not the ones that were written"
        return found

    def go_on(self, found: _Found, step: int) -> None:
        if found.problem and found.raw:
            with explained(self.path):
                keep_aside(self.path, _aside(self.path))
        note = [_line({"step": step, "damaged": found.problem})] if found.incomplete else []
        lines = [*found.lines, *found.then, *note]
        content = b"".join(lines)
        if found.raw is None or content != b"".join(found.raw) or self._has_other_names():
            write_atomic(self.path, content)
        self._count, self._digest = len(lines), hashlib.sha256(content)

    def _has_other_names(self) -> bool:
        """Return whether the file has other hard links, through which a copy elsewhere would be appended to as well."""
        with explained(self.path, "read"):
            status = status_of(self.path)
        return status is not None and status.st_nlink > 1

    def _read(self) -> list[bytes] | None:
        with explained(self.path, "read"):
            return list(log_lines(self.path)) if is_there(self.path) else None


def _line(record: Record) -> bytes:
    return json.dumps(dict(record), allow_nan=False).encode() + b"\n"


def _split(raw: list[bytes] | None) -> list[bytes]:
    """Return the lines with their line endings normalised."""
    return [line.rstrip(b"\r\n") + b"\n" for line in raw or []]


def _records(lines: Iterable[bytes]) -> Iterator[tuple[bytes, Line]]:
    """Yield each complete line, without NUL bytes that a crash may leave, and its record."""
    for damaged in lines:
        line = damaged.lstrip(b"\0")
        with contextlib.suppress(FormatError):
            yield line, parse_json(line, Line, source="")


def _each_once(lines: Iterable[bytes], step: int) -> Iterator[bytes]:
    """Yield the intact lines up to a checkpoint of `step`, once each; only lines of rollbacks may be repeated."""
    seen = set[bytes]()
    for line, record in _records(lines):
        told = "rolled_back_from" in record
        if (record["step"] < step or _tells_of_rollback(record, step)) and (told or line not in seen):
            seen.add(line)
            yield line


def _tells_of_rollback(record: Record, step: int) -> bool:
    return record["step"] == step and "rolled_back_from" in record


def _mark_of(lines: list[bytes]) -> Mark:
    return Mark(len(lines), hashlib.sha256(b"".join(lines)).hexdigest())


def _is_of(mark: Mark, lines: list[bytes]) -> bool:
    return _mark_of(lines) == Mark(mark.lines, mark.sha256)


def _steps(steps: list[int]) -> str:
    return f"that of step {steps[0]}" if len(steps) == 1 else f"those of steps {steps[0]} to {steps[-1]}"


def _aside(path: Path) -> Path:
    """Return where to keep a damaged file: log-damaged.jsonl, or with a number if that exists already."""
    number, aside = 1, path.with_name(f"{path.stem}-damaged{path.suffix}")
    while is_there(aside):
        number += 1
        aside = path.with_name(f"{path.stem}-damaged-{number}{path.suffix}")
    return aside
