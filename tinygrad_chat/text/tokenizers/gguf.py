"""Reads and writes the tokenizer in the metadata of a GGUF file: every token as text, with its type.

Bytes are written as letters, as in a `tokenizer.json`. How text is split is given by a name of llama.cpp's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tinygrad_chat.errors import ConfigError
from tinygrad_chat.formatting import short_repr
from tinygrad_chat.text.tokenizers.bpe import BPETokenizer
from tinygrad_chat.text.tokenizers.huggingface import from_description, letters_of, pre_tokenizer_of

KEY = "tokenizer.ggml."
PATTERN_OF = {
    "gpt-2": "gpt2",
    "llama-bpe": "llama3",
    "llama3": "llama3",
    "llama-v3": "llama3",
    "qwen2": "qwen2",
    "smollm": "smollm2",
}
"""The pattern that splits text, by llama.cpp's names."""

NORMALIZE = "tinygrad_chat.tokenizer.normalize"
"""Whether text is first converted to NFC: a key of ours, as llama.cpp has none for it."""
NORMAL, UNKNOWN, CONTROL, ADDED, UNUSED = 1, 2, 3, 4, 5
"""llama.cpp's types of tokens."""


def from_gguf(settings: Mapping[str, Any], *, size: int = 0) -> BPETokenizer:
    """Make the tokenizer that a file's metadata describe, padded to at least `size` tokens, which stand for nothing.

    Raises ConfigError, naming the key, for anything invalid or unsupported.
    """
    kind, pre = settings.get(f"{KEY}model"), settings.get(f"{KEY}pre", "gpt-2")
    if kind != "gpt2":
        raise ConfigError(f"{KEY}model: expected gpt2 (byte-level BPE), received {short_repr(kind)}")
    if not isinstance(pre, str) or pre not in PATTERN_OF:
        raise ConfigError(f"{KEY}pre: expected one of {', '.join(PATTERN_OF)}, received {short_repr(pre)}")
    tokens, merges = settings.get(f"{KEY}tokens"), settings.get(f"{KEY}merges", [])
    if not isinstance(tokens, list) or not isinstance(merges, list):
        raise ConfigError(f"{KEY}tokens, {KEY}merges: expected lists of texts")
    kinds = np.asarray(settings.get(f"{KEY}token_type", np.full(len(tokens), NORMAL)))
    if kinds.shape != (len(tokens),):
        raise ConfigError(f"{KEY}token_type: expected one for each of {len(tokens):,} tokens")
    first = settings.get(f"{KEY}bos_token_id") if settings.get(f"{KEY}add_bos_token") is True else None
    named = [
        {"id": number, "content": tokens[number], "special": bool(kinds[number] != ADDED)}
        for number in np.flatnonzero((kinds == CONTROL) | (kinds == ADDED) | (kinds == UNKNOWN)).tolist()
    ]
    known = {each["id"] for each in named}
    unused = set(np.flatnonzero(kinds == UNUSED).tolist())
    pattern = PATTERN_OF[pre]
    root = {
        "added_tokens": named,
        "normalizer": {"type": "NFC"} if settings.get(NORMALIZE, pattern == "qwen2") is True else None,  # as Qwen's own
        "pre_tokenizer": pre_tokenizer_of(pattern),
        "post_processor": _before(tokens[first]) if type(first) is int and first in known else None,
        "model": {
            "type": "BPE",
            "ignore_merges": pattern == "llama3",
            "vocab": {text: number for number, text in enumerate(tokens) if number not in known | unused},
            "merges": merges,
        },
    }
    bos = settings.get(f"{KEY}bos_token_id")
    return from_description(root, bos=tokens[bos] if type(bos) is int and bos in known else None, size=size)


def to_gguf(tokenizer: BPETokenizer) -> dict[str, Any]:
    """Return a tokenizer as GGUF metadata. Raises ConfigError if llama.cpp cannot split text in the same way."""
    names = {pattern: name for name, pattern in reversed(PATTERN_OF.items())}
    if tokenizer.pattern not in names:
        raise ConfigError(
            f"llama.cpp does not split text as {tokenizer.pattern} does; train with --pre-tokenizer "
            f"{' or '.join(dict.fromkeys(PATTERN_OF.values()))}"
        )
    texts = letters_of(tokenizer)
    kinds = np.full(tokenizer.size, NORMAL, np.int32)
    kinds[[number for number, text in enumerate(texts) if not text]] = UNUSED
    for special, named in ((CONTROL, tokenizer.special_tokens), (ADDED, tokenizer.added_tokens)):
        for name, number in named.items():
            texts[number], kinds[number] = name, special
    unnamed = [number for number, text in enumerate(texts) if not text]
    for number in unnamed:
        texts[number] = f"[PAD{number}]"
    end = tokenizer.end_names[0] if tokenizer.end_names else tokenizer.bos_name
    return {
        f"{KEY}model": "gpt2",
        f"{KEY}pre": names[tokenizer.pattern],
        NORMALIZE: tokenizer.normalize,
        f"{KEY}tokens": texts,
        f"{KEY}token_type": kinds,
        f"{KEY}merges": [f"{texts[left]} {texts[right]}" for left, right in tokenizer.merges],
        f"{KEY}bos_token_id": np.uint32(tokenizer.bos),
        f"{KEY}eos_token_id": np.uint32(tokenizer.special_tokens[end]),
        f"{KEY}add_bos_token": tokenizer.turns is None or tokenizer.turns.first.startswith(tokenizer.bos_name),
    }


def _before(name: str) -> dict[str, Any]:
    """Return a post-processor that puts a special token before every text."""
    return {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": name, "type_id": 0}}]}
