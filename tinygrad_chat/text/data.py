"""The door to data: what `--data` names, as tokens, read at most once, and tokenized only where that was never done.

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
    """Return the corpus called `data` as tokens, by a `tokenizer` or a new one of the kind "characters" or "bytes".

    The store also says what the corpus holds, which tokenizer it is, and what of the corpus was left out.
    `text_field` and `encoding` are as `open_corpus` has them, `split` as `choose_split` has it. `progress` is told of a
    download, and of each MiB that is read. Raises DataError where the corpus cannot be read, and as `tokenize` does.
    """
    corpus = open_corpus(data, text_field=text_field, encoding=encoding, progress=progress)
    store = tokenize(corpus, tokenizer, split, progress=progress)
    return dataclasses.replace(store, left_out=corpus.left_out, notes=(*corpus.notes, *store.notes))


def open_sources(data: Source, tokenizer: Tokenizer | str, **options: Any) -> TokenStore | MixedStore:
    """Return what `open_data` does with these `options`; sources that have shares each by itself, by one tokenizer.

    Raises DataError as `shares_of` does, too.
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
    """Return a corpus as tokens. What comes from files is kept on disk, and tokenized once while it is the same.

    Where the cache folder cannot be written, or for documents from elsewhere, the tokens lie in a temporary file.
    Raises VocabularyError for text that `tokenizer` does not know, StorageError where there is no room for its tokens.
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
            f"--data {corpus.name}: no room for its tokens in {tempfile.gettempdir()} ({error.strerror}); "
            "free some space, or name another folder in the variable TMPDIR"
        ) from error


def count_unknown_characters(corpus: Corpus, tokenizer: CharacterTokenizer) -> Counter[str]:
    """Return how often each character that `tokenizer` does not know occurs in a corpus."""
    counts: Counter[str] = Counter()
    for document in corpus.documents():
        for piece in document:
            counts.update(piece)
    return Counter({character: count for character, count in counts.items() if character not in tokenizer})


def expect_chat_tokens(corpus: Corpus, tokenizer: Tokenizer | None) -> Tokenizer:
    """Return the tokenizer of conversations, None for one of characters. Raises UsageError where it cannot tell who
    speaks."""
    kind = CharacterTokenizer.kind if tokenizer is None else tokenizer.kind
    if tokenizer is not None:
        with contextlib.suppress(UsageError):
            return ChatTemplate(tokenizer).tokenizer
    raise UsageError(
        f"--data {corpus.name}: holds conversations, and the tokenizer ({kind}) has no tokens that tell who speaks"
        "; use --tokenizer bpe, or begin with a run that did"
    )


def _known(tokenizer: Tokenizer | str) -> Tokenizer | None:
    """Return the tokenizer, but None for a new one of characters: which, only the text will tell."""
    if tokenizer == CharacterTokenizer.kind:
        return None
    if tokenizer == ByteTokenizer.kind:
        return ByteTokenizer()
    if isinstance(tokenizer, str):
        raise UsageError(f"tokenizer: expected characters or bytes, received {tokenizer!r}")
    return tokenizer
