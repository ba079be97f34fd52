"""The built-in corpora that are downloaded once, verified and kept in the user's cache folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tinygrad_chat.errors import DataError
from tinygrad_chat.files import cache_folder, explained, is_folder, read_plain, write_atomic
from tinygrad_chat.text.fetching import FetchError, fetch

Progress = Callable[[str, int, int], None]
"""(what is being done, such as "fetching", bytes so far, bytes in all)"""


@dataclass(frozen=True)
class Download:
    """Where a corpus is fetched from, what its bytes must hash to, and whether each line is a document."""

    url: str
    sha256: str
    size: int
    document_per_line: bool = False


DOWNLOADS = {
    "shakespeare": Download(
        "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        1_115_394,
    ),
    "names": Download(
        "https://raw.githubusercontent.com/karpathy/makemore/master/names.txt",
        "0a30b5557f192f32ab962680889aac5f6fda0f4cecf40a6d0b5694f58ea8cc4d",
        228_145,
        document_per_line=True,
    ),
}


def download(name: str, progress: Progress | None = None) -> Path:
    """Return the path of the corpus `name` (a key of DOWNLOADS) in the cache, fetching it the first time.

    Raises DataError if it cannot be fetched or does not have the expected SHA-256, StorageError if the cache cannot be
    written.
    """
    source, path = DOWNLOADS[name], cache_folder() / f"{name}.txt"
    if _is_kept(source, path):
        return path
    content = bytearray()
    try:
        for piece in fetch(source.url, most=source.size):
            content += piece
            if progress is not None:
                progress("fetching", len(content), source.size)
    except FetchError as error:
        raise DataError(
            f"--data {name}: cannot fetch {source.url} ({error}); "
            "connect to the network once, or use --data pydoc, which needs none"
        ) from error
    received = hashlib.sha256(content).hexdigest()
    if received != source.sha256:
        raise DataError(
            f"--data {name}: the file from {source.url} has SHA-256 {received[:12]}..., expected "
            f"{source.sha256[:12]}...; try again later, or pass your own file with --data FILE"
        )
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, bytes(content))
    return path


def _is_kept(source: Download, path: Path) -> bool:
    """Return whether the cache has a corpus intact. Raises DataError if there is a folder in its place."""
    try:
        if is_folder(path):
            raise DataError(f"{path}: expected a file, received a folder; remove it")
        return hashlib.sha256(read_plain(path, most=source.size)).hexdigest() == source.sha256
    except OSError:  # missing, not a file, or longer: it is fetched, and replaces what is there
        return False
