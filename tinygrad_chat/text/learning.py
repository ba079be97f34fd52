"""A BPE tokenizer learned from a corpus, once: it is kept in the cache folder while the files are as they were."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tinygrad_chat.errors import CheckpointError, FormatError, StorageError
from tinygrad_chat.files import cache_folder, list_folder, write_atomic
from tinygrad_chat.schema import read_json
from tinygrad_chat.text.corpora import Corpus
from tinygrad_chat.text.download import Progress
from tinygrad_chat.text.formats.encoding import PIECE
from tinygrad_chat.text.token_cache import stamp_of
from tinygrad_chat.text.token_store import checksum
from tinygrad_chat.text.tokenizers import Tokenizer, tokenizer_from_state
from tinygrad_chat.text.tokenizers.bpe_training import train_bpe

VOCABULARY = 4096
LEARNING = 1  # to be raised when the same text would give another tokenizer
MOST_LEARNED = 100 << 20  # characters of a corpus: what comes behind them hardly changes which are frequent
MOST_KEPT = 100
LARGEST_STATE = 64 << 20  # bytes


def learn_tokenizer(corpus: Corpus, vocabulary: int = VOCABULARY, *, progress: Progress | None = None) -> Tokenizer:
    """Return a BPE tokenizer of `vocabulary` tokens, or fewer where a text has no more, for what a corpus holds.

    Of a corpus longer than MOST_LEARNED its first documents count. `progress` is told of what is read, and of merges.
    """
    stamp = stamp_of(corpus) if corpus.files else ""
    named = [LEARNING, vocabulary, [str(file.absolute()) for file in corpus.files], corpus.cut, stamp]
    path = cache_folder() / "tokenizers" / f"{checksum(named)[:32]}.json"
    if stamp:
        with contextlib.suppress(OSError, FormatError, CheckpointError):
            return tokenizer_from_state(read_json(path, dict[str, Any], most=LARGEST_STATE))
    tokenizer = train_bpe(some_documents(corpus, progress), vocabulary, progress=progress)
    if stamp and stamp == stamp_of(corpus):
        with contextlib.suppress(OSError, StorageError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, json.dumps(tokenizer.state()).encode())
            _make_room(path.parent)
    return tokenizer


def some_documents(
    corpus: Corpus, progress: Progress | None = None, *, most: int = MOST_LEARNED
) -> Iterator[Iterator[str]]:
    """Yield the first documents of a corpus, about `most` characters in all; `progress` is told of each MiB."""
    read, total = 0, min(corpus.size(), most)

    def pieces(document: Iterator[str]) -> Iterator[str]:
        nonlocal read
        for piece in document:
            before, read = read, read + len(piece)
            if progress is not None and before // PIECE < read // PIECE and read <= total:
                progress("counting words", read, total)
            yield piece
            if read >= most:
                return

    for document in corpus.documents(any_bytes=True):
        yield pieces(iter(document))
        if read >= most:
            return


def _make_room(folder: Path) -> None:
    every = [path for path in list_folder(folder, follow=True) if path.suffix == ".json"]
    kept = sorted(every, key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for path in kept[MOST_KEPT:]:
        path.unlink(missing_ok=True)
