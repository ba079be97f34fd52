"""Tokenizers' files: what is no tokenizer, or asks for what we do not have, is refused in one line."""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tinygrad_chat
from tinygrad_chat.errors import CheckpointError, ConfigError
from tinygrad_chat.text.tokenizers import BPETokenizer, files
from tinygrad_chat.text.tokenizers.bpe_training import HUGGING_FACE, train_bpe
from tinygrad_chat.text.tokenizers.files import read_tokenizer, write_tokenizer
from tinygrad_chat.text.tokenizers.huggingface import to_huggingface
from tinygrad_chat.text.tokenizers.splitting import PATTERNS
from tinygrad_chat.text.tokenizers.tiktoken import from_tiktoken, to_tiktoken


@functools.cache
def trained(pattern: str = "nanochat") -> BPETokenizer:
    return train_bpe([["the cat and the other cat that sat there " * 5]], 300, pattern=pattern, alphabet=HUGGING_FACE)


def root() -> dict[str, Any]:
    return json.loads(to_huggingface(trained()))


def changed(*path: str | int, to: object) -> Callable[[], bytes]:
    def make() -> bytes:
        whole = root()
        inner: Any = whole
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = to
        return json.dumps(whole).encode()

    return make


SPLIT = ("pre_tokenizer", "pretokenizers", 0)

BAD = {
    "nothing": (lambda: b"", "256 bytes, received 0"),
    "no JSON": (lambda: b"{", "not valid JSON"),
    "no text": (lambda: b'{"a": "\xff"}', "not valid JSON"),
    "nested without end": (lambda: b'{"a":' + b"[" * 200_000, "is nested too deeply"),
    "an empty object": (lambda: b"{}", "model: expected an object"),
    "another model": (changed("model", "type", to="WordPiece"), "model: expected BPE, received 'WordPiece'"),
    "dropout": (changed("model", "dropout", to=0.1), "dropout is not supported"),
    "a prefix": (changed("model", "continuing_subword_prefix", to="##"), "continuing_subword_prefix is not supported"),
    "byte fallback": (changed("model", "byte_fallback", to=True), "byte_fallback is not supported"),
    "another decoder": (changed("decoder", to={"type": "Metaspace"}), "decoder: expected ByteLevel"),
    "lower case": (changed("normalizer", to={"type": "Lowercase"}), "normalizer: expected NFC or none"),
    "no pre-tokenizer": (changed("pre_tokenizer", to=None), "pretokenizers: expected an object"),
    "words": (changed("pre_tokenizer", to={"type": "Whitespace"}), "pre_tokenizer: expected ByteLevel"),
    "another pattern": (changed(*SPLIT, "pattern", to={"Regex": "(a+)+b"}), "unknown pattern, '(a+)+b'; known"),
    "a long pattern": (changed(*SPLIT, "pattern", to={"Regex": "x" * 10**6}), "unknown pattern, "),
    "a prefix space": (changed("pre_tokenizer", to={"type": "ByteLevel", "add_prefix_space": True}), "add_prefix"),
    "other behaviour": (changed(*SPLIT, "behavior", to="Removed"), "unknown pattern"),
    "a vocabulary of words": (changed("model", "vocab", to=["a"]), "model: vocab: expected an object, received list"),
    "no letter of a byte": (changed("model", "vocab", "\u4e00", to=290), "expected bytes written as letters"),
    "a number by words": (changed("model", "vocab", "!", to="0"), "expected a token id"),
    "a number by truth": (changed("model", "vocab", "!", to=True), "expected a token id"),
    "a huge number": (changed("model", "vocab", "!", to=10**9), "expected a token id below 1048576"),
    "a negative number": (changed("model", "vocab", "!", to=-1), "expected a token id"),
    "a number twice": (changed("model", "vocab", "!", to=1), "expected a unique id"),
    "merges of nothing": (changed("model", "merges", to=[["a", "zzzz"]]), "merges: expected pairs of tokens"),
    "merges in threes": (changed("model", "merges", to=[["a", "b", "c"]]), "merges: expected pairs of tokens"),
    "merges by numbers": (changed("model", "merges", to=[3]), "merges: expected pairs of tokens"),
    "merges in lists": (changed("model", "merges", to=[[["a"], "b"]]), "merges: expected pairs of tokens"),
    "merges that make none": (changed("model", "merges", to=[["q", "z"]]), "expected pairs of tokens that make"),
    "no special one": (changed("added_tokens", to=[]), "added_tokens: expected one of <|bos|>"),
    "added ones without names": (changed("added_tokens", to=[{"id": 3}]), "added_tokens: expected text as content"),
    "blanks that are added": (
        changed("added_tokens", to=[{"id": 3, "content": "<|bos|>"}, {"id": 4, "content": "  ", "special": False}]),
        "added_tokens: '  ' occurs in ordinary text",
    ),
    "added ones as text": (changed("added_tokens", to=["<|bos|>"]), "added_tokens: expected an object"),
    "no base64": (lambda: b"!!! 0\n", "line 1: expected a token in base64 and the rank 0"),
    "ranks out of order": (lambda: b"AA== 1\n", "line 1: expected a token in base64 and the rank 0"),
    "empty tokens": (lambda: b" 0\n", "line 1: expected a token in base64"),
    "a pickle": (lambda: b"\x80\x04\x95\n.", "line 1: expected a token in base64"),
    "too few ranks": (lambda: b"AA== 0\n", "256 bytes, received 1"),
    "tokens twice": (lambda: to_tiktoken(trained()) + b"AA== %d\n" % (trained().size - 9), "expected each once"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "reason"), BAD.values(), ids=BAD)
def test_what_is_no_tokenizer_is_refused_in_a_line(make: Callable[[], bytes], reason: str, tmp_path: Path):
    path = tmp_path / "file"
    path.write_bytes(make())
    with pytest.raises(CheckpointError) as caught:
        read_tokenizer(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: not a usable tokenizer: ")
    assert reason in message
    assert "\n" not in message
    assert len(message) - len(str(path)) < 330


def test_whatever_stands_in_the_place_of_a_part_is_read_or_refused(tmp_path: Path):
    path = tmp_path / "tokenizer.json"

    def places(inner: Any, where: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        found = [where] if where else []
        entries = inner.items() if isinstance(inner, dict) else enumerate(inner) if isinstance(inner, list) else []
        for key, value in list(entries)[:4]:
            found += places(value, (*where, key))
        return found

    whole = root()
    for where in places(whole):
        for value in (None, [], "x", 7, [[]], {"type": []}):
            spoilt = copy.deepcopy(whole)
            inner: Any = spoilt
            for key in where[:-1]:
                inner = inner[key]
            inner[where[-1]] = value
            path.write_text(json.dumps(spoilt))
            with contextlib.suppress(CheckpointError):
                read_tokenizer(path)


def test_what_is_no_file_or_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        read_tokenizer(tmp_path / "none")
    monkeypatch.setattr(files, "LARGEST_FILE", 10)
    (tmp_path / "tokenizer.json").write_bytes(to_huggingface(trained()))
    with pytest.raises(CheckpointError, match="cannot be read: 0 MiB is more than there is room for"):
        read_tokenizer(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(CheckpointError, match="cannot be read: expected a file"):
            read_tokenizer(tmp_path / "pipe")


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_tokenizer_survives_its_file(pattern: str, tmp_path: Path):
    path = tmp_path / "tokenizer.json"
    write_tokenizer(trained(pattern), path)
    for place in (path, tmp_path):
        assert tinygrad_chat.load_tokenizer(place).state() == trained(pattern).state()
    ranks = tmp_path / "ours.tiktoken"
    write_tokenizer(trained(pattern), ranks)
    assert read_tokenizer(ranks, pattern=pattern).state() == trained(pattern).state()
    with pytest.raises(CheckpointError, match="already defines how text is split"):
        read_tokenizer(path, pattern=pattern)


@pytest.mark.parametrize("name", ["<|user_end|>", {"content": "<|user_end|>"}])
def test_a_models_settings_say_what_begins_documents(name: object, tmp_path: Path):
    write_tokenizer(trained(), tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": name}))
    assert read_tokenizer(tmp_path).bos == trained().special_tokens["<|user_end|>"]
    for unfit in ("[]", "{", '{"bos_token": null}', '{"bos_token": 3}'):
        (tmp_path / "tokenizer_config.json").write_text(unfit)
        assert read_tokenizer(tmp_path).bos == trained().bos
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "<nobody>"}')
    with pytest.raises(CheckpointError, match="bos: expected the name of a special token, received '<nobody>'"):
        read_tokenizer(tmp_path)


def test_ranks_cannot_say_everything():
    normalizing = BPETokenizer.from_state({**trained().state(), "normalize": True})
    with pytest.raises(ConfigError, match=r"write a tokenizer\.json instead$"):
        to_tiktoken(normalizing)
    assert from_tiktoken(to_tiktoken(trained()), special_tokens=["<s>"]).special_tokens == {"<s>": trained().size - 9}
