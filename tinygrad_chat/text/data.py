"""The entry point for data: what `--data` names, as tokens. A corpus is tokenized only if no cached store has it.

>>> store = open_data("pydoc", "characters")
>>> store.tokenizer.decode(store.tokens[:23])
'The "assert" statement'
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections import Counter
from typing import Any

from tinygrad_chat.errors import StorageError, UsageError
from tinygrad_chat.formatting import short_list
from tinygrad_chat.text.conversations.template import ChatTemplate
from tinygrad_chat.text.corpora import Corpus, Source, open_corpus
from tinygrad_chat.text.download import Progress
from tinygrad_chat.text.formats.rows import TEXT_FIELD
from tinygrad_chat.text.reading import Reading
from tinygrad_chat.text.shares import shares_of, without_shares
from tinygrad_chat.text.split import AUTO
from tinygrad_chat.text.token_cache import find_store, make_store, takes_any_bytes
from tinygrad_chat.text.token_store import MixedStore, TokenStore, temporary_store
from tinygrad_chat.text.tokenizers import ByteTokenizer, CharacterTokenizer, Tokenizer


def open_data(
    data: Source,
    tokenizer: Tokenizer | str,
    *,
    text_field: str = TEXT_FIELD,
    encoding: str | None = None,
    split: str = AUTO,
    progress: Progress | None = None,
) -> TokenStore:
    """Return the corpus that `data` names as tokens, by a `tokenizer` or a new one: "characters" or "bytes".

    The store also records the contents of the corpus, the tokenizer, and which files were left out. `text_field` and
    `encoding` are as in `open_corpus`, `split` as in `choose_split`. `progress` is called during a download, and for
    each MiB read. Raises DataError if the corpus cannot be read, and whatever `tokenize` raises.
    """
    corpus = open_corpus(data, text_field=text_field, encoding=encoding, progress=progress)
    store = tokenize(corpus, tokenizer, split, progress=progress)
    return dataclasses.replace(store, left_out=corpus.left_out, notes=(*corpus.notes, *store.notes))


def open_sources(data: Source, tokenizer: Tokenizer | str, **options: Any) -> TokenStore | MixedStore:
    """Open `data` as `open_data` does, with these `options`; sources with shares get a store each, with one tokenizer.

    Also raises DataError as `shares_of` does.
    """
    shares = shares_of(data)
    if shares is None:
        return open_data(data, tokenizer, **options)
    names = without_shares(data)
    stores = tuple(open_data(name, tokenizer, **options) for name in names)
    if tokenizer == CharacterTokenizer.kind:
        of_all = CharacterTokenizer("".join(store.tokenizer.state()["alphabet"] for store in stores))
        stores = tuple(open_data(name, of_all, **options) for name in names)
    return MixedStore(short_list([data] if isinstance(data, str) else data), stores, shares)


def tokenize(
    corpus: Corpus, tokenizer: Tokenizer | str, split: str = AUTO, *, progress: Progress | None = None
) -> TokenStore:
    """Return a corpus as tokens. One from files, or an embedded one, is tokenized once and cached until it changes.

    If the cache folder cannot be written, or for documents from elsewhere, the tokens go into a temporary file. Raises
    VocabularyError for text that `tokenizer` cannot encode, StorageError if there is no room for the tokens.
    """
    known = _known(tokenizer)
    if corpus.conversations:
        expect_chat_tokens(corpus, known)
    if corpus.files or corpus.stamp:
        store = find_store(corpus, known, split, progress=progress)
        if store is not None:
            return store
        with contextlib.suppress(OSError, StorageError):
            return make_store(corpus, known, split, progress=progress)
    try:
        reading = Reading(corpus, any_bytes=takes_any_bytes(known), activity="tokenizing", progress=progress)
        return temporary_store(reading, known, corpus.name, split)
    except OSError as error:
        raise StorageError(
            f"--data {corpus.name}: no space for its tokens in {tempfile.gettempdir()} ({error.strerror}); "
            "free some space, or set TMPDIR to another folder"
        ) from error


def count_unknown_characters(corpus: Corpus, tokenizer: CharacterTokenizer) -> Counter[str]:
    """Return how often each character that `tokenizer` does not know occurs in a corpus."""
    counts: Counter[str] = Counter()
    for document in corpus.documents():
        for piece in document:
            counts.update(piece)
    return Counter({character: count for character, count in counts.items() if character not in tokenizer})


def expect_chat_tokens(corpus: Corpus, tokenizer: Tokenizer | None) -> Tokenizer:
    """Return `tokenizer` if it can render conversations; None stands for a new character tokenizer.

    Raises UsageError if it has no tokens that mark who speaks.
    """
    kind = CharacterTokenizer.kind if tokenizer is None else tokenizer.kind
    if tokenizer is not None:
        with contextlib.suppress(UsageError):
            return ChatTemplate(tokenizer).tokenizer
    raise UsageError(
        f"--data {corpus.name}: holds conversations, and the tokenizer ({kind}) has no tokens that mark who speaks"
        "; use --tokenizer bpe, or start from a run that did"
    )


def _known(tokenizer: Tokenizer | str) -> Tokenizer | None:
    """Return the tokenizer, or None for a new character tokenizer: its alphabet depends on the text."""
    if tokenizer == CharacterTokenizer.kind:
        return None
    if tokenizer == ByteTokenizer.kind:
        return ByteTokenizer()
    if isinstance(tokenizer, str):
        raise UsageError(f"tokenizer: expected characters or bytes, received {tokenizer!r}")
    return tokenizer
