"""A run's text as tokens of the tokenizer that `--tokenizer` selects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tinygrad_chat.config.groups import DataOptions
from tinygrad_chat.runs.tokenizer import tokenizer_named
from tinygrad_chat.text.corpora import Corpus, Source, open_corpus
from tinygrad_chat.text.data import open_sources
from tinygrad_chat.text.download import Progress
from tinygrad_chat.text.learning import learn_tokenizer
from tinygrad_chat.text.shares import shares_of, without_shares
from tinygrad_chat.text.split import AUTO
from tinygrad_chat.text.token_store import MixedStore, TokenStore
from tinygrad_chat.text.tokenizers import BPETokenizer, CharacterTokenizer, Tokenizer

LONG_ENOUGH = 200_000
"""Bytes of text from which BPE is the default: a shorter text has too few frequent pieces of words."""


def open_tokens(
    source: Source,
    tokenizer: Tokenizer | str,
    *,
    vocabulary: int,
    pre_tokenizer: str = DataOptions.pre_tokenizer,
    split: str,
    progress: Progress | None = None,
    **reading: Any,
) -> TokenStore | MixedStore:
    """Open a source with a tokenizer, or one that `tokenizer_called` finds or learns; see `open_sources`."""
    if isinstance(tokenizer, str):
        tokenizer = tokenizer_called(
            tokenizer,
            vocabulary,
            lambda: [open_corpus(each, **reading, progress=progress) for each in _split_apart(source)],
            pre_tokenizer=pre_tokenizer,
            split=split,
            progress=progress,
        )
    return open_sources(source, tokenizer, **reading, split=split, progress=progress)


def open_chosen(
    data: DataOptions, tokenizer: Tokenizer | str, *, progress: Progress | None = None
) -> TokenStore | MixedStore:
    """Open the data of a run's options; see `open_tokens`."""
    chosen = {"vocabulary": data.vocabulary, "pre_tokenizer": data.pre_tokenizer, "split": data.split, **data.reading}
    return open_tokens(data.source, tokenizer, **chosen, progress=progress)


def tokenizer_called(
    name: str,
    vocabulary: int,
    open_texts: Callable[[], Sequence[Corpus]],
    *,
    pre_tokenizer: str = DataOptions.pre_tokenizer,
    split: str = AUTO,
    progress: Progress | None = None,
) -> Tokenizer | str:
    """Return the tokenizer called `name`; for characters only their name, as reading the text builds that tokenizer.

    "bpe" is learned from the training split of the texts, with that `vocabulary` and `pre_tokenizer`. "auto" means bpe
    for conversations and for text files of LONG_ENOUGH bytes in total, otherwise characters. Other names are paths of a
    tokenizer's file or of a run. Raises UsageError, in one line, if there is none.
    """
    if name == CharacterTokenizer.kind:
        return name
    if name in (AUTO, BPETokenizer.kind):
        texts = open_texts()
        chats = any(text.conversations for text in texts)
        if name == AUTO and not chats and sum(text.size() for text in texts) < LONG_ENOUGH:
            return CharacterTokenizer.kind
        return learn_tokenizer(texts, vocabulary, pattern=pre_tokenizer, split=split, progress=progress)
    return tokenizer_named(name, option="--tokenizer", others=(CharacterTokenizer.kind, BPETokenizer.kind))


def _split_apart(source: Source) -> Sequence[Source]:
    """Return the sources that are split separately: each one with a share, or all of them as one."""
    return without_shares(source) if shares_of(source) else [source]
