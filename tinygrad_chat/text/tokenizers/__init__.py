"""Text to integers and back. Each tokenizer has special tokens, which stand for no text: BOS begins each document.

tokenizer.py   the interface of a tokenizer
characters.py  one token for each character of an alphabet
bytes.py       one for each byte of UTF-8
bpe.py         one for each frequent run of bytes: byte-pair encoding
  bpe_training.py  learns which runs those are
  rust_training.py the same with rustbpe, for gigabytes
  splitting.py     splits text into pre-tokens, within which bytes are merged
  merging.py       merges bytes into tokens
  normalization.py Unicode NFC, which some models apply first
  huggingface.py   reads and writes tokenizer.json
  gguf.py          reads and writes the tokenizer in a GGUF file
  tiktoken.py      reads and writes the ranks of tiktoken
  files.py         reads and writes any of these tokenizer files
turns.py       the texts between the turns of a chat
numbers.py     tokens written as numbers, for imported models
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
    """Make the tokenizer that `state` describes. Raises CheckpointError if it describes none."""
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
