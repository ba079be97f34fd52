"""Token stores that are cached between runs, in the user's cache folder, and found again.

A store is found by the contents of its corpus and by its tokenizer. The contents are known without reading them if the
files are unchanged: path, size, both times to the nanosecond and inode. The clock is coarse, and a file may change
twice within one tick: so a file that was changed just before it was read is not trusted, and is hashed again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from tinygrad_chat.errors import FormatError, StorageError
from tinygrad_chat.files import (
    cache_folder,
    is_folder,
    is_partial,
    list_folder,
    partial_folder,
    remove_folder_atomic,
    rename_folder_atomic,
    write_atomic,
)
from tinygrad_chat.schema import read_json
from tinygrad_chat.text.corpora import Corpus
from tinygrad_chat.text.download import Progress
from tinygrad_chat.text.reading import Contents, Reading
from tinygrad_chat.text.token_store import (
    FORMAT,
    LARGEST_METADATA,
    METADATA,
    TokenStore,
    checksum,
    in_use,
    open_store,
    store_key,
    write_store,
)
from tinygrad_chat.text.tokenizers import BPETokenizer, ByteTokenizer, CharacterTokenizer, Tokenizer

MAX_BYTES = 8 << 30  # of all stores together; the most recently used stay, and those in use
MAX_STORES = 200
MAX_CORPORA = 1000
COARSEST_CLOCK = 3 * 10**9  # nanoseconds: FAT counts in steps of two seconds


@dataclass(frozen=True)
class Known:
    """What is known about a corpus: its contents, its alphabet if that was needed, and its files' `stamp`.

    An empty stamp matches no files: the corpus has to be read again.
    """

    contents: Contents
    alphabet: str | None
    stamp: str


def find_store(
    corpus: Corpus, tokenizer: Tokenizer | None, split: str, *, progress: Progress | None = None
) -> TokenStore | None:
    """Return the store of a corpus, or None; without a `tokenizer`, the one for the corpus's own characters.

    A known corpus whose files may have changed is read once, to hash it.
    """
    known = _recall(corpus)
    if known is None:
        return None
    stamp = stamp_of(corpus)
    if not stamp or known.stamp != stamp:
        reading = Reading(corpus, any_bytes=takes_any_bytes(tokenizer), activity="reading", progress=progress)
        for document in reading:
            for _ in document:
                pass
        unchanged = reading.contents() == known.contents
        known = Known(reading.contents(), known.alphabet if unchanged else None, _same(stamp, corpus))
        _remember(corpus, known)
    if tokenizer is None and known.alphabet is not None:
        tokenizer = CharacterTokenizer(known.alphabet)
    if tokenizer is None:
        return None
    key = store_key(known.contents, tokenizer, split, conversations=corpus.conversations)
    return open_store(stores_folder() / key, corpus.name)


def make_store(
    corpus: Corpus, tokenizer: Tokenizer | None, split: str, *, progress: Progress | None = None
) -> TokenStore:
    """Tokenize a corpus in one pass into a cached store; without a `tokenizer`, by its own characters.

    Two processes may do so at once: the slower one takes the store of the faster. Raises OSError or StorageError if the
    cache folder cannot be written.
    """
    stamp = stamp_of(corpus)
    with partial_folder(stores_folder()) as partial:
        reading = Reading(corpus, any_bytes=takes_any_bytes(tokenizer), activity="tokenizing", progress=progress)
        folder = stores_folder() / write_store(partial, reading, tokenizer, corpus.name, split)
        store = open_store(folder, corpus.name)
        if store is None:
            with contextlib.suppress(OSError, StorageError):  # if another process was faster, its store will do
                rename_folder_atomic(partial, folder)
            store = open_store(folder, corpus.name)
    if store is None:
        raise StorageError(f"{folder}: cannot be written")
    alphabet = store.tokenizer.state()["alphabet"] if tokenizer is None else None
    before = _recall(corpus)
    if alphabet is None and before is not None and before.contents == store.contents:
        alphabet = before.alphabet
    _remember(corpus, Known(store.contents, alphabet, _same(stamp, corpus)))
    _make_room()
    return store


def takes_any_bytes(tokenizer: Tokenizer | None) -> bool:
    """Return whether a tokenizer can also encode bytes that are not UTF-8."""
    return isinstance(tokenizer, ByteTokenizer | BPETokenizer)


def stores_folder() -> Path:
    """Return where token stores are kept."""
    return cache_folder() / "tokens"


def _note(corpus: Corpus) -> Path:
    """Return the path of the note on what is known about a corpus."""
    files = [str(file.absolute()) for file in corpus.files]
    return cache_folder() / "corpora" / f"{checksum([FORMAT, files, corpus.cut])[:32]}.json"


def _recall(corpus: Corpus) -> Known | None:
    try:
        return read_json(_note(corpus), Known, most=LARGEST_METADATA)
    except (OSError, FormatError):
        return None


def _remember(corpus: Corpus, known: Known) -> None:
    with contextlib.suppress(OSError, StorageError):
        note = _note(corpus)
        note.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(note, json.dumps(dataclasses.asdict(known)).encode())


def stamp_of(corpus: Corpus) -> str:
    """Return a digest that changes whenever the corpus does; empty if a change could go unnoticed."""
    if not corpus.files:
        return corpus.stamp
    now, files = time.time_ns(), []
    try:
        for file in corpus.files:
            status = file.stat()
            if max(status.st_mtime_ns, status.st_ctime_ns) > now - COARSEST_CLOCK:
                return ""
            files.append((status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino))
    except OSError:
        return ""
    return checksum([files, corpus.stamp] if corpus.stamp else files)


def _same(stamp: str, corpus: Corpus) -> str:
    """Return the stamp from before a corpus was read if it still holds, otherwise an empty one."""
    return stamp if stamp == stamp_of(corpus) else ""


def _make_room() -> None:
    """Remove the least recently used stores, abandoned partial ones, and the oldest notes."""
    with contextlib.suppress(OSError, StorageError):
        every = list_folder(stores_folder(), follow=True)
        stores = [folder for folder in every if not folder.name.startswith(".") and is_folder(folder)]
        size = 0
        for number, folder in enumerate(_newest_first(stores, METADATA)):
            size += sum(file.stat().st_size for file in list_folder(folder))
            if (size > MAX_BYTES or number >= MAX_STORES) and not in_use(folder):
                remove_folder_atomic(folder)
        remove_abandoned()
        notes = [note for note in list_folder(cache_folder() / "corpora", follow=True) if note.suffix == ".json"]
        for note in _newest_first(notes)[MAX_CORPORA:]:
            note.unlink(missing_ok=True)


def remove_abandoned() -> None:
    """Remove the partial stores of processes that were killed."""
    abandoned = [path for path in list_folder(stores_folder(), follow=True) if is_partial(path)]
    for partial in abandoned:
        if not in_use(partial):
            shutil.rmtree(partial, ignore_errors=True)


def _newest_first(paths: list[Path], name: str = "") -> list[Path]:
    return sorted(paths, key=lambda path: (path / name).stat().st_mtime_ns, reverse=True)
