"""Text to integers and back. Each tokenizer has special tokens, which stand for no text: BOS, where a document begins.

tokenizer.py   what a tokenizer is
characters.py  one token for each character of an alphabet
bytes.py       one for each byte of UTF-8
bpe.py         one for each frequent run of bytes: byte-pair encoding
  bpe_training.py  which runs those are
  rust_training.py the same by rustbpe, for gigabytes
  splitting.py     text into the pieces within which bytes are merged
  merging.py       bytes into tokens
  normalization.py what some models do to text first
  huggingface.py   tokenizer.json, both ways
  gguf.py          what a GGUF file holds of a tokenizer, both ways
  tiktoken.py      ranks, both ways
  files.py         a tokenizer from any such file, or into one
turns.py       what stands between the turns of a chat
numbers.py     the tokens as numbers, for imported models
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinygrad_chat.errors import CheckpointError, ConfigError
from tinygrad_chat.text.tokenizers.bpe import BPETokenizer
from tinygrad_chat.text.tokenizers.bytes import ByteTokenizer
from tinygrad_chat.text.tokenizers.characters import CharacterTokenizer
from tinygrad_chat.text.tokenizers.numbers import NumberTokenizer
from tinygrad_chat.text.tokenizers.tokenizer import BOS, Tokenizer

__all__ = [
    "BOS",
    "BPETokenizer",
    "ByteTokenizer",
    "CharacterTokenizer",
    "NumberTokenizer",
    "Tokenizer",
    "tokenizer_from_state",
]

LARGEST_SIZE = 1 << 24  # more tokens than any vocabulary has


def tokenizer_from_state(state: Mapping[str, Any]) -> Tokenizer:
    """Make the tokenizer that `state` describes. Raises CheckpointError for a description that makes none."""
    if state.get("kind") == CharacterTokenizer.kind and isinstance(state.get("alphabet"), str):
        return CharacterTokenizer(state["alphabet"])
    if state.get("kind") == ByteTokenizer.kind:
        return ByteTokenizer()
    if state.get("kind") == NumberTokenizer.kind:
        size, bos = state.get("size"), state.get("bos")
        if isinstance(size, int) and isinstance(bos, int) and 0 <= bos < size <= LARGEST_SIZE:
            return NumberTokenizer(size, bos)
    if state.get("kind") == BPETokenizer.kind:
        try:
            return BPETokenizer.from_state(state)
        except ConfigError as error:
            raise CheckpointError(f"tokenizer: {error}") from error
    raise CheckpointError(
        f"tokenizer: expected a description of characters, bytes, BPE or numbers, received {dict(state)!r:.80}"
    )
