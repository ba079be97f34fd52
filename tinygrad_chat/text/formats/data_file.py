"""A file as documents; its kind follows from its name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tinygrad_chat.errors import DataError
from tinygrad_chat.text.formats.compression import COMPRESSED, open_bytes
from tinygrad_chat.text.formats.encoding import Encoding, decode, find_encoding, read_beginning
from tinygrad_chat.text.formats.html import page_text
from tinygrad_chat.text.formats.parquet import parquet_columns, parquet_conversations, parquet_texts
from tinygrad_chat.text.formats.rows import (
    Document,
    Rows,
    are_conversations,
    columns_are_conversations,
    columns_of,
    csv_conversations,
    csv_rows,
    documents_of,
    json_array,
    json_lines,
)

JSON: dict[str, Callable[[Iterable[str], Path], Rows]] = {
    ".jsonl": json_lines,
    ".ndjson": json_lines,
    ".json": json_array,
}
TABLES = (".csv", ".tsv")
PARQUET = ".parquet"
PAGES = (".html", ".htm", ".xhtml")
DRAWINGS = (".svg", ".eps")


@dataclass(frozen=True)
class DataFile:
    """A file that was examined: its `kind`, a suffix in lower case, and its encoding, None if it is not text.

    `returns` is true if its lines end in CRLF or CR.
    """

    path: Path
    kind: str
    encoding: Encoding | None
    returns: bool = False

    def documents(self, text_field: str, any_bytes: bool = False) -> Iterator[Document]:
        """Yield its documents; see `open_corpus`. Raises DataError if it does not hold text of its kind."""
        if self.kind == PARQUET:
            if columns_are_conversations(parquet_columns(self.path), text_field):
                yield from documents_of(parquet_conversations(self.path), text_field)
            else:
                yield from parquet_texts(self.path, text_field)
        elif self.kind in JSON:
            yield from documents_of(JSON[self.kind](self._text(), self.path), text_field)
        elif self.kind in TABLES:
            columns = columns_of(self._text(), self.path)
            if columns_are_conversations(columns, text_field):
                yield from documents_of(csv_conversations(self._text(), self.path, columns), text_field)
            else:
                yield from csv_rows(self._text(), self.path, text_field)
        elif self.kind in PAGES and self.encoding is not None:
            yield page_text(self._text(any_bytes))
        else:
            yield self._text(any_bytes)

    def lack(self, text_field: str) -> str:
        """Return why it cannot be read along with others; empty if it can."""
        if self.kind in DRAWINGS or (self.encoding is None and self.kind != PARQUET):
            return "no text"
        if self.kind in JSON or self.kind in TABLES or self.kind == PARQUET:
            try:
                next(self.documents(text_field), None)
            except DataError:
                return f"no text under {text_field!r}"
        return ""

    def rows_as_they_stand(self, text_field: str) -> bool:
        """Return whether it is a CSV file without a column of that name, so that its raw rows are the documents."""
        if self.kind not in TABLES or self.encoding is None:
            return False
        columns = columns_of(self._text(), self.path)
        return text_field not in columns and not columns_are_conversations(columns, text_field)

    def holds_conversations(self, text_field: str) -> bool:
        """Return whether its documents are conversations. Raises DataError if its beginning cannot be read."""
        if self.kind == PARQUET:
            return columns_are_conversations(parquet_columns(self.path), text_field)
        if self.encoding is None:
            return False
        if self.kind in JSON:
            return are_conversations(JSON[self.kind](self._text(), self.path), text_field)[0]
        return self.kind in TABLES and columns_are_conversations(columns_of(self._text(), self.path), text_field)

    def _text(self, any_bytes: bool = False) -> Iterator[str]:
        with open_bytes(self.path) as file:
            yield from decode(file, self.encoding, self.path, any_bytes=any_bytes)


def look_at(path: Path, encoding: Encoding | None = None) -> DataFile:
    """Return a file with its kind, told by its name, and its encoding, detected from its beginning unless given.

    Raises DataError if it cannot be read, BackendError if a library that it needs is missing.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    kind = suffixes[-1] if suffixes else ""
    if kind == PARQUET:
        return DataFile(path, kind, None)
    with open_bytes(path) as file:
        beginning = read_beginning(file)
    found = find_encoding(beginning, encoding)
    returns = found is not None and b"\r" in beginning
    return DataFile(path, kind, found, returns)
