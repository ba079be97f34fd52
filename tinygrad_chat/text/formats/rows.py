"""Rows as documents, one for each row. However long a file is, only one row is held in memory at a time."""

from __future__ import annotations

import csv
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tinygrad_chat.errors import DataError
from tinygrad_chat.formatting import printable
from tinygrad_chat.text.conversations.dialects import conversation_of, has_keys, looks_like_conversation
from tinygrad_chat.text.conversations.document import chat_document

Document = Iterable[str]
"""A document's text in pieces."""

TEXT_FIELD = "text"
LONGEST_ROW = 1 << 24  # characters; in memory a row takes several times that: as JSON, as Python's objects and as text
SLICE = 1 << 20  # characters of a row passed on at a time
MAX_KEYS = 8  # named in an error message

_SPACE = re.compile(r"[ \t\n\r]*")
_KINDS = {dict: "an object", list: "a list", bool: "true or false", int: "a number", float: "a number"}


Rows = Iterator[tuple[Any, str]]
"""Rows, each with its place in the file."""


def json_lines(text: Iterable[str], path: Path) -> Rows:
    """Yield the JSON value in each line. Raises DataError, naming the line, for invalid JSON."""
    for number, line in enumerate(_lines(text, path), start=1):
        if not line.isspace():
            where = f"{path}, line {number}"
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{where}: expected one JSON object per line ({error})") from None
            yield row, where


def json_array(text: Iterable[str], path: Path) -> Rows:
    """Yield the values of a JSON array, or concatenated JSON values. Raises DataError for anything else."""
    for number, row in enumerate(_values(iter(text), path), start=1):
        yield row, f"{path}, row {number}"


def documents_of(rows: Rows, field: str) -> Iterator[Document]:
    """Yield the text under `field` in each row, or the row's conversation if `are_conversations` says so.

    Raises DataError, naming the place of the row, for any other.
    """
    chats, rows = are_conversations(rows, field)
    for row, where in rows:
        yield chat_document(conversation_of(row, where), where) if chats else document_of(row, field, where)


def are_conversations(rows: Rows, field: str) -> tuple[bool, Rows]:
    """Return whether rows are conversations, judging by the first, and the rows: no "text", but a dialect's keys.

    If a `field` other than "text" is asked for, they are not.
    """
    first = next(rows, None)
    if first is None:
        return False, rows
    row = first[0]
    chats = field == TEXT_FIELD and looks_like_conversation(row) and not (isinstance(row, dict) and field in row)
    return chats, itertools.chain([first], rows)


def csv_rows(text: Iterable[str], path: Path, field: str) -> Iterator[Document]:
    """Yield each row's cell in the column that the first line calls `field`.

    If there is no column "text" and no other is asked for, each raw row is a document, including the first. Raises
    DataError, naming the line, for invalid CSV.
    """
    csv.field_size_limit(LONGEST_ROW)
    taken: list[str] = []
    lines = _lines(text, path)
    first = next(lines, "")
    rows = csv.reader(_recorded([first], lines, taken), delimiter=_delimiter(first))
    column, header = None, True
    try:
        for row in rows:
            raw, where = "".join(taken).rstrip("\n"), f"{path}, line {rows.line_num}"
            if sum(map(len, taken)) > LONGEST_ROW:
                raise _too_long(path)
            taken.clear()
            if header:
                column, header = column_of(row, field, path), False
                if column is not None:
                    continue
            if not row:
                continue
            if column is not None and column >= len(row):
                raise DataError(f"{where}: expected at least {column + 1} cells, received {len(row)}")
            yield _sliced(raw if column is None else row[column])
    except csv.Error as error:
        raise DataError(f"{path}, line {rows.line_num}: cannot be read as CSV ({error})") from None


def columns_of(text: Iterable[str], path: Path) -> list[str]:
    """Return the names of the columns in the first line of a CSV file."""
    first = next(_lines(text, path), "")
    header = next(csv.reader([first], delimiter=_delimiter(first)), [])
    return [name.strip() for name in header]


def csv_conversations(text: Iterable[str], path: Path, columns: list[str]) -> Rows:
    """Yield the rows of a CSV file by column, without the first line. Raises DataError for invalid CSV."""
    csv.field_size_limit(LONGEST_ROW)
    lines = _lines(text, path)
    first = next(lines, "")
    rows = csv.reader(lines, delimiter=_delimiter(first))
    try:
        for row in rows:
            where = f"{path}, line {rows.line_num + 1}"
            if any(row[len(columns) :]):
                raise DataError(
                    f"{where}: expected {len(columns)} cells, received {len(row)}; put text that contains "
                    "the separator in double quotes"
                )
            if row:
                yield dict(zip(columns, row, strict=False)), where
    except csv.Error as error:
        raise DataError(f"{path}, line {rows.line_num + 1}: cannot be read as CSV ({error})") from None


def columns_are_conversations(columns: list[str], field: str) -> bool:
    """Return whether columns of these names hold conversations: no "text", but a dialect's keys."""
    return field == TEXT_FIELD and field not in columns and has_keys(columns)


def _delimiter(first: str) -> str:
    return max(",;\t", key=first.count)


def column_of(header: list[str], field: str, path: Path) -> int | None:
    """Return which column is called `field`; None if there is none and `field` is only the default."""
    names = [name.strip() for name in header]
    if field in names:
        return names.index(field)
    if field == TEXT_FIELD:
        return None
    raise DataError(f"{path}: expected a column {field!r}, received {_listed(names)}; name one with --text-field")


def document_of(row: Any, field: str, where: str) -> Document:
    """Return the text of a row, in slices. Raises DataError, naming its place `where`, if it has none."""
    if not isinstance(row, dict):
        kind = _KINDS.get(type(row), "null" if row is None else "only text")
        raise DataError(f"{where}: expected an object with text under {field!r}, received {kind}")
    if field not in row:
        raise DataError(
            f"{where}: expected text under {field!r}, received the keys {_listed(row)}; name one with --text-field"
        )
    text = row[field]
    if text is None:
        raise DataError(f"{where}: expected text under {field!r}, received null; remove the row, or give it text")
    if not isinstance(text, str):
        kind = _KINDS.get(type(text), type(text).__name__)
        raise DataError(
            f"{where}: expected text under {field!r}, received {kind}; write the training text as one string per row, "
            "or name another key with --text-field"
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(f"{where}: an unpaired surrogate is not a character; remove it") from None
    return _sliced(text)


def _listed(names: Iterable[str]) -> str:
    shown = [printable(str(name))[:40] for name in names]
    return ", ".join(shown[:MAX_KEYS]) + (", ..." if shown[MAX_KEYS:] else "") or "none"


def _sliced(text: str) -> Document:
    return [text[start : start + SLICE] for start in range(0, len(text), SLICE)]


def _lines(text: Iterable[str], path: Path) -> Iterator[str]:
    r"""Yield lines with their \n, which the last may lack. Raises DataError for one that is too long for memory."""
    held, size = [], 0
    for piece in text:
        first, *others = piece.split("\n")
        held.append(first)
        size += len(first)
        if size > LONGEST_ROW:
            raise _too_long(path)
        for other in others:
            yield "".join(held) + "\n"
            held, size = [other], len(other)
    if size:
        yield "".join(held)


def _recorded(first: list[str], lines: Iterator[str], taken: list[str]) -> Iterator[str]:
    for source in (first, lines):
        for line in source:
            taken.append(line)
            yield line


def _values(pieces: Iterator[str], path: Path) -> Iterator[Any]:
    """Yield the values of a JSON array, or concatenated values, reading on while one is incomplete."""
    decode = json.JSONDecoder().raw_decode
    buffer, start, number, ended, closing = "", 0, 0, False, ""
    while True:
        start = _space_after(buffer, start)
        if number == 0 and not closing and buffer[start : start + 1] == "[":
            closing, start = "]", _space_after(buffer, start + 1)
        at = start
        if closing and number and buffer[at : at + 1] == ",":
            at = _space_after(buffer, at + 1)
        elif closing and buffer[at : at + 1] == closing:
            if buffer[at + 1 :].strip() or any(piece.strip() for piece in pieces):
                raise DataError(f"{path}: expected one JSON array, received more after it")
            return
        try:
            value, end = decode(buffer, at)
        except (ValueError, RecursionError) as error:
            if ended and at == len(buffer) and not closing:
                return
            if ended:
                reason = "it ends early" if at == len(buffer) else error
                raise DataError(f"{path}, row {number + 1}: expected a JSON array of objects ({reason})") from None
            if len(buffer) - start > LONGEST_ROW:
                raise _too_long(path) from None
            more = [buffer[start:]]
            size = len(more[0])
            while size < 2 * len(more[0]) + SLICE and not ended:  # doubled, so that each is parsed about twice
                piece = next(pieces, None)
                ended = piece is None
                more.append(piece or "")
                size += len(more[-1])
            buffer, start = "".join(more), 0
            continue
        if end - at > LONGEST_ROW:
            raise _too_long(path)
        number += 1
        yield value
        start = end


def _space_after(buffer: str, start: int) -> int:
    found = _SPACE.match(buffer, start)
    return found.end() if found else start


def _too_long(path: Path) -> DataError:
    return DataError(
        f"{path}: a row of more than {LONGEST_ROW >> 20} million characters is too long; split it, or "
        "put its text into a .txt file"
    )
