"""The built-in corpora that are fetched once, checked and kept in the user's cache folder."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import tempfile
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tinygrad_chat.errors import DataError
from tinygrad_chat.files import cache_folder, read_plain

TIMEOUT = 20  # seconds without an answer

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

    Raises DataError where it cannot be fetched or is not what it was when its SHA-256 was written down.
    """
    source = DOWNLOADS[name]
    folder = cache_folder()
    path = folder / f"{name}.txt"
    with contextlib.suppress(OSError):  # it is fetched anew
        if hashlib.sha256(read_plain(path, most=source.size)).hexdigest() == source.sha256:
            return path
    partial = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, partial = tempfile.mkstemp(dir=folder)
        with os.fdopen(descriptor, "wb") as file:
            received = _fetch(source, file, progress)
        if received != source.sha256:
            raise DataError(
                f"--data {name}: what {source.url} sent has SHA-256 {received[:12]}..., expected "
                f"{source.sha256[:12]}...; try again later, or pass your own file with --data FILE"
            )
        Path(partial).replace(path)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise DataError(
            f"--data {name}: cannot fetch {source.url} ({reason}); "
            "connect to the network once, or use --data pydoc, which needs none"
        ) from error
    finally:
        if partial is not None:
            Path(partial).unlink(missing_ok=True)
    return path


def _fetch(source: Download, file, progress: Progress | None) -> str:
    digest, done = hashlib.sha256(), 0
    with urllib.request.urlopen(source.url, timeout=TIMEOUT) as response:
        while piece := response.read(1 << 16):
            file.write(piece)
            digest.update(piece)
            done += len(piece)
            if progress is not None:
                progress("fetching", done, source.size)
    return digest.hexdigest()
