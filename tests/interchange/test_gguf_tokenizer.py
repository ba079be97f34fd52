"""Tokenizers of GGUF files and of each family's tokenizer.json: the tokens of `tokenizers`, line for line."""

from __future__ import annotations

import functools
import json
import random
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import pytest

from tests.interchange.models import learned, with_chatml
from tests.text.writings import words
from tinygrad_chat.config.files import read_settings
from tinygrad_chat.config.resolve import resolve
from tinygrad_chat.errors import ConfigError
from tinygrad_chat.interchange.gguf import read_gguf
from tinygrad_chat.interchange.gguf_writing import write_gguf
from tinygrad_chat.text.tokenizers import BPETokenizer
from tinygrad_chat.text.tokenizers.bpe_training import train_bpe
from tinygrad_chat.text.tokenizers.gguf import KEY, from_gguf, to_gguf
from tinygrad_chat.text.tokenizers.huggingface import from_huggingface, to_huggingface

REGEX = {
    name: r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    + digits
    + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    for name, digits in {"llama3": "{1,3}", "qwen2": ""}.items()
}
"""As Llama 3 and Qwen2 write them in their files."""
ODD = [
    "",
    "  \t\r\n \n\n  x",
    "e\u0301\u0323 ﬁ Å \uac00\u11a8 ̈",
    "\uff11\uff12\uff13 ٣٤٥ 12345 ½Ⅷ",
    "don't DON'T I'LL 'sa  's",
    "👩\u200d👩\u200d👧 \U0001f1e9\U0001f1ea \U000e0041 \x00\x04\x7f",
    "\u200b\u00a0\u3000\u2028x\u2029\u0085\ufeff",
    "日本語テキスト、한국어 ไทย العربية",
    "a" * 300 + "\n" * 40 + "!" * 50,
    "\x1c\x1d\x1e\x1f",
]


@functools.cache
def lines() -> list[str]:
    source = random.Random(21)
    return ODD + [words(source, 6) for _ in range(5000)]


def theirs(pattern: str, *, size: int = 900) -> Any:
    """A tokenizer of the library `tokenizers` that has learned some of the lines, split as a family's is."""
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers, of the extra peers, is not installed")
    pre, made = (
        tokenizers.pre_tokenizers,
        tokenizers.Tokenizer(tokenizers.models.BPE(ignore_merges=pattern == "llama3")),
    )
    by_bytes = pre.ByteLevel(add_prefix_space=False, use_regex=pattern not in REGEX)
    first = {
        "gpt2": [],
        "smollm2": [pre.Digits(individual_digits=True)],
        **{name: [pre.Split(tokenizers.Regex(regex), "isolated")] for name, regex in REGEX.items()},
    }[pattern]
    made.pre_tokenizer = pre.Sequence([*first, by_bytes]) if first else by_bytes
    made.decoder = tokenizers.decoders.ByteLevel()
    if pattern == "qwen2":
        made.normalizer = tokenizers.normalizers.NFC()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = [letter for letter in sorted(pre.ByteLevel.alphabet()) if pattern != "smollm2" or letter not in "ĄĆ"]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    made.train_from_iterator(lines()[:1500], trainer)
    return made


@pytest.mark.profile("ci")
@pytest.mark.parametrize("pattern", ["gpt2", "smollm2", "llama3", "qwen2"])
def test_5000_lines_have_the_tokens_of_tokenizers(pattern: str):
    library = theirs(pattern)
    ours = from_huggingface(library.to_str().encode())
    assert (ours.pattern, ours.bos_name) == (pattern, "<|endoftext|>")
    encoded = library.encode_batch_fast(lines(), add_special_tokens=False)
    for line, expected in zip(lines(), encoded, strict=True):
        assert ours.encode(line).tolist() == expected.ids, line
    assert ours.normalize == (pattern == "qwen2")


def test_a_byte_without_a_token_is_left_out_as_there():
    library = theirs("smollm2")
    ours = from_huggingface(library.to_str().encode())
    for text in ("\x04\x06a\x04b", "a\x04b c"):
        assert ours.encode(text).tolist() == library.encode(text).ids


def test_a_token_before_every_text_is_the_beginning():
    library = json.loads(theirs("llama3").to_str())
    single = [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    processor = {"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": {}}
    library["post_processor"] = {"type": "Sequence", "processors": [{"type": "ByteLevel"}, processor]}
    assert from_huggingface(json.dumps(library).encode()).bos_name == "<|im_start|>"


@pytest.mark.parametrize("pattern", ["gpt2", "smollm2", "llama3", "qwen2"])
def test_settings_of_a_file_make_the_same_tokenizer(pattern: str, tmp_path: Path):
    tokenizer = with_chatml(pattern)
    write_gguf(tmp_path / "t.gguf", to_gguf(tokenizer), {}, {})
    found = from_gguf(read_gguf(tmp_path / "t.gguf").metadata, size=tokenizer.size + 5)
    assert found.tokens == [*tokenizer.tokens, *[b""] * 5]
    assert (found.merges, found.special_tokens) == (tokenizer.merges, tokenizer.special_tokens)
    assert (found.pattern, found.bos_name) == (pattern, tokenizer.bos_name)
    assert found.ignore_merges == (pattern == "llama3")  # as llama.cpp does, which reads no setting for it
    for line in lines()[:200]:
        assert found.encode(line).tolist() == tokenizer.encode(line).tolist()


def test_what_is_no_tokenizer_is_named():
    whole = to_gguf(learned("llama3"))
    unfit: dict[str, tuple[dict[str, Any], str]] = {
        "another kind": ({"model": "llama"}, r"expected gpt2 \(byte-level BPE\), received 'llama'"),
        "another split": ({"pre": "tekken"}, "pre: expected one of gpt-2, llama-bpe"),
        "no tokens": ({"tokens": 3}, "expected lists of texts"),
        "kinds too few": ({"token_type": np.array([1], np.int32)}, "token_type: expected one for each of 512"),
        "a merge of strangers": ({"merges": ["qq zz"]}, "merges: expected pairs of tokens"),
        "no special token": ({"token_type": np.full(512, 1, np.int32)}, "added_tokens: expected one of"),
    }
    for changes, expected in unfit.values():
        with pytest.raises(ConfigError, match=expected):
            from_gguf({**whole, **{f"{KEY}{name}": value for name, value in changes.items()}})


def test_what_the_portable_chat_learns_is_the_same_everywhere():
    """Python's manual and odd Unicode: our tokens, those of `tokenizers` by our file, and of what a GGUF file says."""
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers, of the extra peers, is not installed")
    text = "".join(topics.values()).splitlines(keepends=True)
    chosen = resolve({}, base=read_settings("chat-portable")).data.pre_tokenizer
    tokenizer = train_bpe([text[:2000]], 600, pattern=chosen)
    library = tokenizers.Tokenizer.from_str(to_huggingface(tokenizer).decode())
    found = from_gguf(to_gguf(tokenizer))
    for line in [*text[2000:4000], *lines()[:500]]:
        expected = tokenizer.encode(line).tolist()
        assert library.encode(line).ids == expected
        assert found.encode(line).tolist() == expected


def test_only_a_split_that_llama_cpp_knows_is_written():
    with pytest.raises(ConfigError, match="does not split text as nanochat does; train with --pre-tokenizer gpt2 or"):
        to_gguf(BPETokenizer.from_merges([]))
