"""Parquet files, the usual format of datasets on the web: a document per row, with pyarrow, the extra `parquet`."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tinygrad_chat.errors import DataError
from tinygrad_chat.text.conversations.dialects import KEYS
from tinygrad_chat.text.formats.compression import needed
from tinygrad_chat.text.formats.rows import TEXT_FIELD, Document, Rows, column_of, document_of

ROWS = 256  # read at a time


def parquet_columns(path: Path) -> list[str]:
    """Return the names of the columns. Raises DataError if the file is not Parquet."""
    with _open(path) as file:
        return file.schema_arrow.names


def parquet_texts(path: Path, field: str) -> Iterator[Document]:
    """Yield the text in the column `field` of each row. Raises DataError if there is none."""
    names = parquet_columns(path)
    if column_of(names, field, path) is None:
        raise DataError(
            f"{path}: expected a column {TEXT_FIELD!r}, received {', '.join(names[:8])}; name one with --text-field"
        )
    for row, where in _rows(path, [field]):
        yield document_of(row, field, where)


def parquet_conversations(path: Path) -> Rows:
    """Yield each row's columns of a conversation, with lists of structs as lists of objects."""
    return _rows(path, KEYS)


def _rows(path: Path, wanted: Collection[str]) -> Rows:
    """Yield each row with those of its columns that are `wanted`."""
    number = 0
    with _open(path) as file:
        columns = [name for name in file.schema_arrow.names if name in wanted]
        for batch in file.iter_batches(batch_size=ROWS, columns=columns):
            for index in range(batch.num_rows):
                number += 1
                cells = {name: batch.column(name)[index].as_py() for name in columns}
                yield cells, f"{path}, row {number}"


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    """Open a file with pyarrow, whose errors become DataErrors of one line."""
    arrow, parquet = (needed(module, path, extra="parquet") for module in ("pyarrow", "pyarrow.parquet"))
    try:
        with parquet.ParquetFile(path) as file:
            yield file
    except arrow.ArrowException as error:
        reason = str(error).splitlines()[0][:120]
        raise DataError(f"{path}: cannot be read as Parquet ({reason})") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
