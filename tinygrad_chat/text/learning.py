"""Trains a BPE tokenizer on a corpus, once: it is cached while the files are unchanged."""

from __future__ import annotations

import contextlib
import itertools
import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tinygrad_chat.errors import CheckpointError, FormatError, StorageError
from tinygrad_chat.files import cache_folder, list_folder, write_atomic
from tinygrad_chat.schema import read_json
from tinygrad_chat.text.conversations.document import ChatDocument
from tinygrad_chat.text.corpora import Corpus
from tinygrad_chat.text.corpus_workers import CorpusWorkers, are_embedded
from tinygrad_chat.text.download import Progress
from tinygrad_chat.text.formats.encoding import PIECE
from tinygrad_chat.text.reading import Reading
from tinygrad_chat.text.split import AUTO, DOCUMENTS, documents_before_end, end_from
from tinygrad_chat.text.token_cache import stamp_of
from tinygrad_chat.text.token_store import checksum
from tinygrad_chat.text.tokenizers import Tokenizer, tokenizer_from_state
from tinygrad_chat.text.tokenizers.bpe_training import bpe_of_words, train_bpe

VOCABULARY = 4096
LEARNING = 3  # bump when the same text would give a different tokenizer
MAX_LEARNED = 100 << 20  # bytes of text: more of it hardly changes which pairs are frequent
MAX_KEPT = 100
LARGEST_STATE = 64 << 20  # bytes


def learn_tokenizer(
    corpora: Sequence[Corpus],
    vocabulary: int = VOCABULARY,
    *,
    pattern: str = "nanochat",
    split: str = AUTO,
    progress: Progress | None = None,
) -> Tokenizer:
    """Train a BPE tokenizer of `vocabulary` tokens on corpora; fewer tokens if the text has no more pairs to merge.

    `pattern` is the name of one of `splitting.PATTERNS`. What `split` holds out is not used, as `training_documents`
    says, nor is any text beyond the first MAX_LEARNED bytes. `progress` is called while reading and merging.
    """
    stamp = _stamp_of_all(corpora)
    files = [[[str(file.absolute()) for file in corpus.files], corpus.cut] for corpus in corpora]
    path = cache_folder() / "tokenizers" / f"{checksum([LEARNING, vocabulary, pattern, split, files, stamp])[:32]}.json"
    if stamp:
        with contextlib.suppress(OSError, FormatError, CheckpointError):
            return tokenizer_from_state(read_json(path, dict[str, Any], most=LARGEST_STATE))
    tokenizer = _learned_side_by_side(corpora, vocabulary, pattern, split, progress) if are_embedded(corpora) else None
    if tokenizer is None:
        documents = itertools.chain.from_iterable(training_documents(corpus, split, progress) for corpus in corpora)
        total = sum(corpus.size() for corpus in corpora)
        texts = some_documents(documents, total=total, progress=progress)
        tokenizer = train_bpe(texts, vocabulary, pattern=pattern, progress=progress)
    if stamp and stamp == _stamp_of_all(corpora):
        with contextlib.suppress(OSError, StorageError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, json.dumps(tokenizer.state()).encode())
            _make_room(path.parent)
    return tokenizer


def _learned_side_by_side(
    corpora: Sequence[Corpus], vocabulary: int, pattern: str, split: str, progress: Progress | None
) -> Tokenizer | None:
    """Return the same tokenizer for embedded corpora and cache their tokens, too: each corpus is generated once.

    Return None if that fails, or if there is more text than MAX_LEARNED.
    """
    with CorpusWorkers([corpus.name for corpus in corpora], pattern, split, progress) as workers:
        words = workers.count_words()
        if words is None or sum(len(word) * times for word, times in words.items()) > MAX_LEARNED:
            return None
        tokenizer = bpe_of_words(words, vocabulary, pattern=pattern, progress=progress)
        workers.tokenize(tokenizer)
    return tokenizer


def training_documents(corpus: Corpus, split: str, progress: Progress | None = None) -> Iterator[Iterable[str]]:
    """Yield the documents of a corpus that are not held out; of conversations, each part of a message is one.

    If the end of a text is held out, that is the last tenth of its bytes, as there are no tokens yet, and of
    conversations as many whole ones. `progress` is called during the first pass, which finds out what is held out.
    """
    reading = Reading(corpus, any_bytes=True, activity="reading", progress=progress)
    lengths = array("q", (sum(map(len, document)) for document in reading))
    contents, documents = reading.contents(), corpus.documents(any_bytes=True)
    if contents.split(split) == DOCUMENTS:
        kept = itertools.compress(documents, (not out for out in reading.held_out))
    elif corpus.conversations:
        kept = itertools.islice(documents, documents_before_end(lengths))
    else:
        kept = some_documents(documents, end_from(contents.bytes))
    for document in kept:
        if isinstance(document, ChatDocument):
            yield from ([text] for text in document.texts())
        else:
            yield document


def some_documents(
    documents: Iterable[Iterable[str]],
    most: int = MAX_LEARNED,
    *,
    total: int = 0,
    progress: Progress | None = None,
) -> Iterator[Iterator[str]]:
    """Yield the first documents, the last cut so that they have `most` bytes in all; `progress` is called per MiB."""
    read, total = 0, min(total, most)

    def pieces(document: Iterable[str]) -> Iterator[str]:
        nonlocal read
        for piece in document:
            size = len(piece.encode("utf-8", "surrogateescape"))
            before, read = read, read + size
            if progress is not None and before // PIECE < read // PIECE and read <= total:
                progress("counting words", read, total)
            yield piece if read <= most else piece[: len(piece) * (most - before) // size]
            if read >= most:
                return

    for document in documents:
        if read >= most:
            return
        yield pieces(document)


def _stamp_of_all(corpora: Sequence[Corpus]) -> str:
    """Return a digest that changes whenever one of the corpora does; empty if a change could go unnoticed."""
    stamps = [stamp_of(corpus) for corpus in corpora]
    return checksum(stamps) if all(stamps) else ""


def _make_room(folder: Path) -> None:
    every = [path for path in list_folder(folder, follow=True) if path.suffix == ".json"]
    kept = sorted(every, key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for path in kept[MAX_KEPT:]:
        path.unlink(missing_ok=True)
