"""Parquet files, which most datasets on the web come as: a document for every row, by pyarrow, the extra `parquet`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tinygrad_chat.errors import DataError
from tinygrad_chat.text.formats.compression import needed
from tinygrad_chat.text.formats.rows import TEXT_FIELD, Document, column_of, document_of

ROWS = 256  # that are read at a time


def parquet_rows(path: Path, field: str) -> Iterator[Document]:
    """Yield what stands in the column `field` of each row. Raises DataError where there is no text."""
    arrow, parquet = (needed(module, path, extra="parquet") for module in ("pyarrow", "pyarrow.parquet"))
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if column_of(names, field, path) is None:
                raise DataError(
                    f"{path}: expected a column {TEXT_FIELD!r}, received {', '.join(names[:8])}; "
                    "name one with --text-field"
                )
            for batch in file.iter_batches(batch_size=ROWS, columns=[field]):
                for value in batch.column(0):
                    number += 1
                    yield document_of({field: value.as_py()}, field, f"{path}, row {number}")
    except arrow.ArrowException as error:
        reason = str(error).splitlines()[0][:120]
        raise DataError(f"{path}: cannot be read as Parquet ({reason})") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
