"""Corpora: documents from a text file, a folder, a JSONL file or a built-in name, read piece by piece.

Nothing here holds a whole file in memory: a document is an iterator of pieces of text.

>>> corpus = open_corpus("pydoc")
>>> first = next(iter(corpus.documents()))
>>> "".join(first).startswith("The \\"assert\\" statement")
True
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

from tinygrad_chat.errors import DataError
from tinygrad_chat.text.download import DOWNLOADS, Progress, download

PIECE = 1 << 20  # bytes read at a time

Document = Iterable[str]
"""A document's text in pieces."""


@dataclass(frozen=True)
class Corpus:
    """A named source of documents. `documents(any_bytes=False)` starts over at each call.

    With `any_bytes`, bytes that are no UTF-8 come through as surrogate escapes instead of a DataError. `files` are
    those that the documents come from, and `cut` is how they are cut into documents, where more than their names
    decides that: while neither changes, nor do the documents, and their tokens are kept from one start to the next.
    A corpus without files is tokenized at each start.
    """

    name: str
    documents: Callable[..., Iterator[Document]]
    files: tuple[Path, ...] = ()
    cut: str = ""

    def size(self) -> int:
        """Return how many bytes its files have; 0 where there are none, or one is gone."""
        try:
            return sum(file.stat().st_size for file in self.files)
        except OSError:
            return 0


def open_corpus(data: str, *, text_field: str = "text", progress: Progress | None = None) -> Corpus:
    """Return the corpus called `data`: a built-in name, or the path of a text file, a JSONL file or a folder.

    `text_field` names the key of each JSONL row that holds its text. `progress` is told of a download.
    Raises DataError where there is nothing of that name or a download fails.
    """
    if data == "pydoc":
        return Corpus(data, _pydoc, _pydoc_files(), cut="by topic")
    if data in DOWNLOADS:
        path = download(data, progress)
        if DOWNLOADS[data].document_per_line:
            return Corpus(data, lambda any_bytes=False: _lines(path), (path,), cut="by line")
        return Corpus(data, lambda any_bytes=False: _whole_file(path, any_bytes), (path,))
    files = _find_files(data)

    def documents(any_bytes: bool = False) -> Iterator[Document]:
        for file in files:
            if file.suffix in (".jsonl", ".ndjson"):
                yield from _rows(file, text_field)
            else:
                yield from _whole_file(file, any_bytes)

    return Corpus(data, documents, tuple(files), cut=f"rows by {text_field!r}")


def _find_files(data: str) -> list[Path]:
    path = Path(data).expanduser()
    with _readable(path):
        if path.is_file():
            return [path]
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file() and not _hidden(file.relative_to(path)))
            if not files:
                raise DataError(f"--data {data}: the folder holds no files; put text or JSONL files into it")
            return files
    built_in = ", ".join(["pydoc", *DOWNLOADS])
    raise DataError(f"--data {data}: no such file or folder, and not one of the built-in names {built_in}")


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _pydoc(any_bytes: bool = False) -> Iterator[Document]:
    """The prose of Python's own reference manual, a topic a document; every CPython carries it."""
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise DataError(
            "--data pydoc: this Python comes without pydoc_data.topics; pass a text file with --data FILE"
        ) from error
    return ([topics[name]] for name in sorted(topics))


def _pydoc_files() -> tuple[Path, ...]:
    try:
        found = find_spec("pydoc_data.topics")
    except ImportError:
        return ()
    return (Path(found.origin),) if found is not None and found.has_location and found.origin else ()


def _whole_file(path: Path, any_bytes: bool) -> Iterator[Document]:
    yield _pieces(path, any_bytes)


def _pieces(path: Path, any_bytes: bool) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape" if any_bytes else "strict")
    start = 0  # offset in the file of what the decoder holds back
    with _opened(path) as file:
        while True:
            piece = file.read(PIECE)
            held = len(decoder.getstate()[0])
            try:
                yield decoder.decode(piece, final=not piece)
            except UnicodeDecodeError as error:
                offset = start - held + error.start
                raise DataError(
                    f"{path}: byte 0x{error.object[error.start]:02x} at offset {offset} is not UTF-8; "
                    "convert the file (iconv -f ITS_ENCODING -t utf-8), take it away, or train with --tokenizer bytes"
                ) from None
            start += len(piece)
            if not piece:
                return


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    with _readable(path), path.open("rb") as file:
        yield file


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn an OSError while reading `path` into a DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def _lines(path: Path) -> Iterator[Document]:
    with _opened(path) as file:
        for line in file:
            yield [line.decode().rstrip("\r\n")]


def _rows(path: Path, text_field: str) -> Iterator[Document]:
    with _opened(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}, line {number}: expected one JSON object a line ({error})") from None
            if not isinstance(row, dict) or not isinstance(row.get(text_field), str):
                keys = ", ".join(row) if isinstance(row, dict) else type(row).__name__
                raise DataError(
                    f"{path}, line {number}: expected text under {text_field!r}, received {keys}; "
                    "name the key with --text-field"
                )
            try:
                row[text_field].encode()
            except UnicodeEncodeError:
                raise DataError(f"{path}, line {number}: half a surrogate pair is no character; take it out") from None
            yield [row[text_field]]
