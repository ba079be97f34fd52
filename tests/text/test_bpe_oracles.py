"""BPE against the libraries that everybody uses: the same merges in the same order, the same tokens, the same files.

`rustbpe`, `tiktoken` and `tokenizers` are in the extra `peers`; what is not installed is skipped.
"""

from __future__ import annotations

import base64
import functools
import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.text.writings import words
from tinygrad_chat.errors import ConfigError, VocabularyError
from tinygrad_chat.text.tokenizers import BPETokenizer
from tinygrad_chat.text.tokenizers.bpe_training import HUGGING_FACE, train_bpe
from tinygrad_chat.text.tokenizers.files import read_tokenizer, write_tokenizer
from tinygrad_chat.text.tokenizers.huggingface import from_huggingface, to_huggingface
from tinygrad_chat.text.tokenizers.splitting import PATTERNS, Splitter
from tinygrad_chat.text.tokenizers.tiktoken import from_tiktoken, to_tiktoken

SIZE = 1500
LEARNED = 6000  # lines; all are encoded


@functools.cache
def lines() -> list[str]:
    source = random.Random(20)
    return [words(source, 5, broken=True) for _ in range(20_000)]


@functools.cache
def texts() -> list[str]:
    """The same without surrogate escapes, which Rust's strings do not have."""
    return [line.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for line in lines()]


@functools.cache
def trained(*, by_letters: bool = False) -> BPETokenizer:
    """Ours, with ties broken by bytes, or by the letters that Hugging Face writes for them."""
    return train_bpe([[text] for text in texts()[:LEARNED]], SIZE, alphabet=HUGGING_FACE if by_letters else range(256))


def ids(tokenizer: BPETokenizer, texts: list[str]) -> list[list[int]]:
    return [tokenizer.encode(text).tolist() for text in texts]


def tiktoken_of(tokenizer: BPETokenizer) -> Any:
    tiktoken = pytest.importorskip("tiktoken")
    ranks = {token: number for number, token in enumerate(tokenizer.tokens) if token}
    pattern = PATTERNS[tokenizer.pattern]
    special = dict(tokenizer.special_tokens)
    return tiktoken.Encoding("ours", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)


@pytest.mark.profile("ci")
def test_merges_are_rustbpes_in_its_order():
    rustbpe = pytest.importorskip("rustbpe")
    theirs = rustbpe.Tokenizer()
    theirs.train_from_iterator(iter(texts()[:LEARNED]), SIZE - 9, pattern=PATTERNS["nanochat"])
    ranked = sorted(((rank, bytes(token)) for token, rank in theirs.get_mergeable_ranks()))
    assert trained().tokens[: SIZE - 9] == [token for _, token in ranked]


@pytest.mark.profile("ci")
def test_rustbpe_trains_for_us():
    pytest.importorskip("rustbpe")
    some = [[text[:3], text[3:]] for text in texts()[:3000]]
    assert train_bpe(some, 600, trainer="rustbpe").state() == train_bpe(some, 600).state()
    with pytest.raises(VocabularyError, match=r"^trainer: rustbpe accepts only UTF-8"):
        train_bpe([["a\udcff"]], 600, trainer="rustbpe")
    with pytest.raises(ConfigError, match=r"^trainer: rustbpe breaks ties by bytes"):
        train_bpe([["a"]], 600, trainer="rustbpe", alphabet=HUGGING_FACE)


@pytest.mark.profile("ci")
def test_merges_are_those_of_tokenizers_in_its_order():
    tokenizers = pytest.importorskip("tokenizers")
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(PATTERNS["nanochat"]), "isolated")
    bytes_as_letters = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([split, bytes_as_letters])
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=SIZE - 9, initial_alphabet=alphabet, show_progress=False)
    theirs.train_from_iterator(texts()[:LEARNED], trainer)
    model = json.loads(theirs.to_str())["model"]
    ours = json.loads(to_huggingface(trained(by_letters=True)))["model"]
    assert ours["merges"] == [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    assert ours["vocab"] == model["vocab"]
    assert trained(by_letters=True).merges != trained().merges  # ties matter


@pytest.mark.profile("ci")
def test_20000_lines_have_tiktokens_tokens():
    assert ids(trained(), texts()) == tiktoken_of(trained()).encode_ordinary_batch(texts(), num_threads=1)


@pytest.mark.profile("ci")
def test_20000_lines_have_the_tokens_of_tokenizers_by_our_file():
    tokenizers = pytest.importorskip("tokenizers")
    theirs = tokenizers.Tokenizer.from_str(to_huggingface(trained(by_letters=True)).decode())
    assert ids(trained(by_letters=True), texts()) == [each.ids for each in theirs.encode_batch_fast(texts())]


@pytest.mark.profile("ci")
def test_bytes_that_are_no_text_have_tiktokens_tokens():
    theirs = tiktoken_of(trained())
    splitter = Splitter("nanochat")
    for line in [line for line, text in zip(lines(), texts(), strict=True) if line != text][:1000]:
        pieces = [piece.encode("utf-8", "surrogateescape") for piece in splitter.split(line)]
        expected = [token for piece in pieces for token in theirs._encode_single_piece(piece)]
        assert trained().encode(line).tolist() == expected


@pytest.mark.profile("ci")
@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_splits_as_tokenizers_does_by_our_file(pattern):
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = BPETokenizer.from_merges(trained().merges, pattern=pattern)
    theirs = tokenizers.Tokenizer.from_str(to_huggingface(tokenizer).decode())
    some = texts()[:2000] + ["\n".join(texts()[at : at + 20]) for at in range(2000, 3000, 20)]
    assert ids(tokenizer, some) == [each.ids for each in theirs.encode_batch_fast(some)]


@pytest.mark.profile("ci")
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"normalizer": {"type": "NFC"}},
        {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}]}},
        {"added_tokens": [("<|endoftext|>", True), ("<think>", False)]},
        {"model": {"ignore_merges": True}},
        {"model": {"merges": "as text"}},
        {"special first": True},
    ],
    ids=str,
)
def test_their_files_are_read(change):
    """What other models' files have: GPT-2's merges as text, Qwen's NFC and added tokens, SmolLM2's special ones first,
    Llama 3's tokens that no merge reaches."""
    tokenizers = pytest.importorskip("tokenizers")
    root = json.loads(to_huggingface(trained(by_letters=True)))
    if "normalizer" in change:
        root["normalizer"] = change["normalizer"]
    for number, (name, special) in enumerate(change.get("added_tokens", [])):
        root["added_tokens"].append(
            {**root["added_tokens"][0], "content": name, "special": special, "id": SIZE + number}
        )
    model = root["model"]
    if change.get("model") == {"ignore_merges": True}:
        model["vocab"]["Ġhello"] = SIZE - 9  # which no merge makes
        for each in root["added_tokens"]:
            each["id"] += 1
    elif change.get("model"):
        model["merges"] = [" ".join(pair) for pair in model["merges"]]
        model["ignore_merges"] = False
    if change.get("special first"):
        model["vocab"] = {text: number + 9 for text, number in model["vocab"].items()}
        for number, each in enumerate(root["added_tokens"]):
            each["id"] = number
            model["vocab"][each["content"]] = number
    content = json.dumps(root).encode()
    theirs, ours = tokenizers.Tokenizer.from_str(content.decode()), from_huggingface(content)
    some = [*texts()[:1500], "e\u0301 hello \u1112\u1161\u11ab", "a hello hello"]
    expected = [each.ids for each in theirs.encode_batch_fast(some)]
    assert ids(ours, some) == expected
    assert [ours.decode(each) for each in expected] == theirs.decode_batch(expected)
    named = "<think>" if ours.added_tokens else "<|user_end|>"
    text = f"a hello{named} b {named}"
    assert ours.encode(text, special=[named]).tolist() == theirs.encode(text).ids
    again = from_huggingface(to_huggingface(ours))
    assert again.state() == ours.state()


def test_tiktokens_ranks_are_read_and_written(tmp_path: Path):
    load = pytest.importorskip("tiktoken.load")
    path = tmp_path / "ours.tiktoken"
    write_tokenizer(trained(), path)
    ranks = load.load_tiktoken_bpe(str(path))
    assert ranks == {token: number for number, token in enumerate(trained().tokens) if token}
    assert read_tokenizer(path).state() == trained().state()


@pytest.mark.profile("ci")
def test_ranks_of_another_alphabet_are_merges_too():
    ranks = [
        b"%s %d\n" % (base64.b64encode(token), n) for n, token in enumerate(trained(by_letters=True).tokens) if token
    ]
    assert from_tiktoken(b"".join(ranks)).state() == trained(by_letters=True).state()
    assert to_tiktoken(trained(by_letters=True)) == b"".join(ranks)
