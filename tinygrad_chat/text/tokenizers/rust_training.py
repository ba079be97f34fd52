"""Learns merges with `rustbpe`, nanochat's trainer in Rust, for gigabytes of text: the same ones as ours."""

from __future__ import annotations

from collections.abc import Iterable

from tinygrad_chat.errors import BackendError, VocabularyError
from tinygrad_chat.text.tokenizers.splitting import PATTERNS
from tinygrad_chat.text.tokenizers.tiktoken import merges_of


def merges_by_rustbpe(documents: Iterable[Iterable[str]], count: int, pattern: str) -> list[tuple[int, int]]:
    """Return the merges that `learn_merges` would; the pieces of one document at a time are joined in memory.

    Raises BackendError if the extra is not installed, VocabularyError for bytes that are not UTF-8.
    """
    try:
        import rustbpe
    except ImportError as error:
        raise BackendError("trainer: rustbpe is not installed; run: pip install 'tinygrad-chat[bpe]'") from error
    trainer = rustbpe.Tokenizer()  # pyright: ignore[reportAttributeAccessIssue]
    texts = map("".join, documents)
    try:
        trainer.train_from_iterator(texts, 256 + count, pattern=PATTERNS[pattern])
    except UnicodeEncodeError as error:
        raise VocabularyError("trainer: rustbpe accepts only UTF-8; train with python") from error
    ranked = sorted((rank, bytes(token)) for token, rank in trainer.get_mergeable_ranks())
    return merges_of([token for _, token in ranked])
