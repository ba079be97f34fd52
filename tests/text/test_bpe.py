"""Byte-pair encoding: no byte is lost, pieces cut anywhere give the same tokens, what is no tokenizer is refused."""

from __future__ import annotations

import functools
import itertools
import json
import random
import unicodedata
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.text.writings import LETTERS, cut, words
from tinygrad_chat.errors import CheckpointError, ConfigError, VocabularyError
from tinygrad_chat.text.tokenizers import BPETokenizer, merging, splitting, tokenizer_from_state
from tinygrad_chat.text.tokenizers.bpe import CHAT_TOKENS
from tinygrad_chat.text.tokenizers.bpe_training import learn_merges, train_bpe
from tinygrad_chat.text.tokenizers.merging import Merges, merge_endless
from tinygrad_chat.text.tokenizers.splitting import PATTERNS, Part, Splitter

DOCUMENTS = 60


@functools.cache
def trained(pattern: str = "nanochat") -> BPETokenizer:
    source = random.Random(18)
    return train_bpe([[words(source, 40, broken=True)] for _ in range(DOCUMENTS)], 700, pattern=pattern)


any_text = st.one_of(
    st.text(),
    st.text("ab' \n1é😀", max_size=80),
    st.integers(0, 10**6).map(lambda seed: words(random.Random(seed), 20)),
)
seeds = st.integers(0, 10**6)


@pytest.fixture
def tiny_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long begins early, so that short texts show what happens to long ones."""
    monkeypatch.setattr(splitting, "CHUNK", 7)
    monkeypatch.setattr(splitting, "LONGEST", 9)
    monkeypatch.setattr(merging, "WINDOW", 20)
    monkeypatch.setattr(merging, "MARGIN", 8)


@given(any_text, st.sampled_from([*PATTERNS]))
def test_decoding_undoes_encoding(text, pattern):
    tokenizer = trained(pattern)
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens.tolist()) == "".join(tokenizer.decode_stream(tokens.tolist())) == text
    assert tokenizer.bytes_per_token()[tokens].sum() == len(text.encode())
    assert tokens.dtype == np.uint16


@given(seeds)
def test_bytes_that_are_no_text_come_back(seed):
    text = words(random.Random(seed), 20, broken=True)
    raw = text.encode("utf-8", "surrogateescape")
    assert trained().decode_bytes(trained().encode(text).tolist()) == raw


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_document_cut_anywhere_has_the_tokens_of_the_whole(pattern, tiny_buffers):
    tokenizer = trained(pattern)
    for seed in range(40):
        source = random.Random(seed)
        blanks = "".join(source.choices([" ", "\n", "\t", "\r\n"], [9, 1, 1, 1], k=source.randint(0, 40)))
        runs = "".join(source.choices(["a" * 50, "ab" * 30, "!" * 40 + "\n" * 30, "1" * 30, "'r" + "e" * 30], k=2))
        text = words(source, 20, broken=True) + blanks + "'" + runs + blanks + words(source, 5)
        pieces = [token for part in tokenizer.encode_document(cut(text, source, 12)) for token in part.tolist()]
        assert pieces == naive_tokens(tokenizer, text)
        alone = [token for part in tokenizer.cut_document(cut(text, source, 12)) for token in tokenizer.encode(part)]
        assert alone == pieces


def naive_tokens(tokenizer: BPETokenizer, text: str) -> list[int]:
    """What merging all pairs by rank gives, as a textbook has it."""
    rank_of = {pair: rank for rank, pair in enumerate(tokenizer.merges)}
    tokens: list[int] = []
    for piece in Splitter(tokenizer.pattern).split(text):
        parts = [bytes([byte]) for byte in piece.encode("utf-8", "surrogateescape")]
        ids = [tokenizer.tokens.index(part) for part in parts]
        while True:
            pairs = [(rank_of[pair], at) for at, pair in enumerate(itertools.pairwise(ids)) if pair in rank_of]
            if not pairs:
                break
            _, at = min(pairs)
            ids[at : at + 2] = [tokenizer.tokens.index(tokenizer.tokens[ids[at]] + tokenizer.tokens[ids[at + 1]])]
        tokens += ids
    return tokens


@pytest.mark.profile("ci")
def test_a_word_a_heap_and_windows_merge_alike():
    for seed in range(60):
        source = random.Random(seed)
        content = bytes(source.choices(b"abc", [5, 3, 1], k=source.randint(200, 400)))
        results = []
        pairs = learn_merges({content: 1, b"ab" * 30: 3}, 60)
        tokens = [bytes([byte]) for byte in range(256)]
        for left, right in pairs:
            tokens.append(tokens[left] + tokens[right])
        merges = Merges(pairs, range(256, 256 + len(pairs)))
        for most in (0, 10**9):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(merging, "SHORT", most)
                patch.setattr(merging, "WINDOW", 30)
                patch.setattr(merging, "MARGIN", 8)
                results.append(merges.merge(list(content)))
                parts = [content[at : at + 7] for at in range(0, len(content), 7)]
                endless = merge_endless(lambda part, merges=merges: merges.merge(list(part)), parts, tokens)
                results.append(list(itertools.chain.from_iterable(endless)))
        assert all(each == results[0] for each in results)


def test_what_follows_may_change_every_token_before(monkeypatch):
    """Byte 0 joins byte 1, or 1 joins 2, as there is an odd or even number of bytes: nothing is certain too early."""
    monkeypatch.setattr(merging, "WINDOW", 10)
    monkeypatch.setattr(merging, "MARGIN", 1)
    pairs = [(byte, byte + 1) for byte in range(198, -1, -1)]
    tokens = [*(bytes([byte]) for byte in range(256)), *(bytes(pair) for pair in pairs)]
    merges = Merges(pairs, range(256, 256 + len(pairs)))
    for count in (199, 200):
        whole = merges.merge(list(range(count)))
        parts = [bytes([byte]) for byte in range(count)]
        found = merge_endless(lambda part: merges.merge(list(part)), parts, tokens)
        assert list(itertools.chain.from_iterable(found)) == whole


def test_no_more_of_a_long_piece_is_held_than_a_window(monkeypatch):
    monkeypatch.setattr(merging, "WINDOW", 1 << 12)
    held = []

    def letters():
        for _ in range(20):
            yield "lorem" * 2000
            held.append(sum(given))

    given: list[int] = []
    for tokens in trained().encode_document(letters()):
        given.append(sum(trained().bytes_per_token()[tokens]))
    assert sum(given) == 20 * 10_000
    waiting = [10_000 * (number + 1) - done for number, done in enumerate(held)]
    assert max(waiting) < 100_000  # of 200,000


@pytest.mark.parametrize("pattern", PATTERNS)
def test_pieces_are_the_text_and_are_certain_only_when_they_are(pattern, tiny_buffers):
    splitter = Splitter(pattern)
    for seed in range(60):
        source = random.Random(seed)
        text = words(source, 15, broken=True) + "a" * source.randint(0, 30) + " " * source.randint(0, 30)
        found, part = [], ""
        for pieces in splitter.split_document(cut(text, source, 9)):
            if isinstance(pieces, Part):
                part += pieces.text
                if pieces.last:
                    found.append(part)
                    part = ""
            else:
                found += pieces
        assert "".join(found) == text
        assert found == splitter.split(text)


@pytest.mark.parametrize(
    ("pattern", "pieces"),
    {
        "nanochat": ["It", "'S", " ", "12", "34", "5", " x", "\n\n", " ", " y", "!?", "\n"],
        "llama3": ["It", "'S", " ", "123", "45", " x", "\n\n", " ", " y", "!?", "\n"],
        "qwen2": ["It", "'S", " ", *"12345", " x", "\n\n", " ", " y", "!?", "\n"],
        "gpt2": ["It", "'", "S", " 12345", " x", "\n\n ", " y", "!?", "\n"],
        "smollm2": ["It", "'", "S", " ", *"12345", " x", "\n\n ", " y", "!?", "\n"],
    }.items(),
)
def test_patterns_differ_in_numbers_signs_and_lines(pattern, pieces):
    if pattern in ("nanochat", "llama3", "qwen2"):
        pieces = [*pieces[:-2], "!?\n"]
    assert Splitter(pattern).split("It'S 12345 x\n\n  y!?\n") == pieces


def test_every_character_has_the_class_that_unicode_gives_it():
    splitter = Splitter("gpt2")
    for code in [*range(0x2000), *range(0x2000, 0xD800, 43), *range(0xE000, 0x110000, 97)]:
        kind = unicodedata.category(chr(code))[0]
        assert (len(splitter.split(f"a{chr(code)}")) == 1) == (kind == "L")
        assert (len(splitter.split(f"1{chr(code)}")) == 1) == (kind == "N")


@given(any_text)
def test_a_tokenizer_survives_json(text):
    state = json.loads(json.dumps(trained().state()))
    loaded = tokenizer_from_state(state)
    assert loaded.state() == trained().state()
    assert loaded.encode(text).tolist() == trained().encode(text).tolist()


@pytest.mark.parametrize("ignored", [True, False])
def test_a_word_that_no_merge_reaches_is_a_token_only_where_merges_are_ignored(ignored: bool):
    state = trained().state()
    changed = {**state, "tokens": f"{state['tokens']} {b'zqxj'.hex()}", "ignore_merges": ignored}
    assert (BPETokenizer.from_state(changed).encode("zqxj").tolist() == [700]) == ignored


def test_special_tokens_stand_behind_the_merges_in_nanochats_order():
    assert list(trained().special_tokens) == list(CHAT_TOKENS)
    assert trained().special_tokens["<|output_end|>"] == trained().size - 1 == 699
    assert trained().bos == 691
    assert trained().decode([trained().bos]) == ""
    assert trained().bytes_per_token()[trained().bos] == 0


def test_a_special_token_that_is_typed_is_text():
    text = "<|bos|>hi<|user_start|>"
    tokens = trained().encode(text)
    assert not set(tokens.tolist()) & set(trained().special_tokens.values())
    assert trained().decode(tokens.tolist()) == text
    asked = trained().encode(text, special=["<|bos|>"]).tolist()
    assert asked == [trained().bos, *trained().encode("hi<|user_start|>").tolist()]
    assert trained().encode(text, special=trained().special_tokens).tolist()[-1] == trained().bos + 1
    with pytest.raises(VocabularyError, match=r"^encode: expected names of special tokens, received '<bos>'$"):
        trained().encode(text, special=["<bos>"])


def test_half_a_character_is_refused_and_so_is_what_is_no_token():
    with pytest.raises(VocabularyError, match=r"^U\+D83D is an unpaired surrogate"):
        trained().encode("a\ud83d")
    for wrong in (-1, trained().size):
        with pytest.raises(VocabularyError, match=f"^decode: expected tokens from 0 to 699, received {wrong}$"):
            trained().decode([1, wrong])


def test_a_character_streams_once_it_is_certain():
    single = BPETokenizer.from_merges([])
    tokens = single.encode("é😀").tolist()
    assert list(single.decode_stream(tokens)) == ["é", "😀"]
    assert list(single.decode_stream(tokens[:-1])) == ["é", "\ufffd"]
    assert list(single.decode_stream([0xFF, 0x61])) == ["\ufffd", "a"]


def test_words_are_remembered_and_not_without_end(monkeypatch):
    monkeypatch.setattr("tinygrad_chat.text.tokenizers.bpe.MAX_KEPT", 10)
    tokenizer = BPETokenizer.from_state(trained().state())
    text = words(random.Random(3), 200)
    assert tokenizer.encode(text).tolist() == trained().encode(text).tolist()
    assert len(tokenizer._known) <= 10


@given(st.lists(st.text("e\u0301\u0323a\u1100\u1161\u11a8\u212b😀\u09c7\u09be", max_size=4)))
def test_normalizing_pieces_normalizes_the_text(pieces):
    tokenizer = tokenizer_from_state({**trained().state(), "normalize": True})
    text = unicodedata.normalize("NFC", "".join(pieces))
    tokens = [token for part in tokenizer.encode_document(pieces) for token in part.tolist()]
    assert tokens == trained().encode(text).tolist()


def spoil(**changes: object) -> dict:
    return {**trained().state(), **changes}


BAD: dict[str, Callable[[], dict]] = {
    "no text": lambda: spoil(tokens=3),
    "no hexadecimal": lambda: spoil(tokens="zz"),
    "a byte is missing": lambda: spoil(tokens="00 01 02", merges=""),
    "a merge of what is not there": lambda: spoil(merges="1 99999"),
    "a negative merge": lambda: spoil(merges="-1 2"),
    "a merge that makes nothing": lambda: spoil(merges="1 2"),
    "a merge twice": lambda: spoil(merges=",".join([trained().state()["merges"].split(",")[0]] * 2)),
    "three in a pair": lambda: spoil(merges="1 2 3"),
    "a token twice": lambda: spoil(tokens=trained().state()["tokens"].replace("00 01", "01 01", 1)),
    "special ones out of range": lambda: spoil(special_tokens={"<|bos|>": 700}),
    "special ones that share": lambda: spoil(special_tokens={"<|bos|>": 699, "b": 699}),
    "a special one of bytes": lambda: spoil(special_tokens={"<|bos|>": 1}),
    "a special one by words": lambda: spoil(special_tokens={"<|bos|>": "1"}),
    "a special one by truth": lambda: spoil(special_tokens={"<|bos|>": 699, "x": True}),
    "no such bos": lambda: spoil(bos="<bos>"),
    "an added one of other bytes": lambda: spoil(added_tokens={"<think>": 5}),
    "no such pattern": lambda: spoil(pattern="x+"),
    "no truth": lambda: spoil(ignore_merges=1),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_state_that_makes_no_tokenizer_is_refused_in_a_line(bad):
    with pytest.raises(CheckpointError, match=r"^tokenizer: ") as caught:
        tokenizer_from_state(bad())
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_vocabulary_has_room_for_bytes_and_special_tokens():
    assert train_bpe([["ab" * 9]], 265).size == 265
    assert train_bpe([["ab ab ab"]], 1000).size == 265 + 2  # "ab" and " ab", and then every word is one token
    with pytest.raises(ConfigError, match="vocabulary: expected at least 265, received 264"):
        train_bpe([["ab"]], 264)


def test_of_equally_frequent_pairs_the_lowest_tokens_come_first():
    assert learn_merges({b"ab": 1, b"cd": 1, b"bc": 2}, 3) == [(98, 99), (97, 98), (99, 100)]
    backwards = [*range(255, -1, -1)]
    assert learn_merges({b"ab": 1, b"cd": 1}, 1, alphabet=backwards) == [(255 - 99, 255 - 100)]


def test_pairs_are_counted_again_after_every_merge():
    for seed in range(30):
        source = random.Random(seed)
        counts = {bytes(source.choices(b"ab c", k=source.randint(1, 9))): source.randint(1, 5) for _ in range(12)}
        assert learn_merges(counts, 25) == naive_merges(counts, 25)


def naive_merges(counts: dict[bytes, int], count: int) -> list[tuple[int, int]]:
    """What counting everything anew before each merge gives."""
    texts = [(list(word), number) for word, number in counts.items()]
    merges: list[tuple[int, int]] = []
    while len(merges) < count:
        pairs: dict[tuple[int, int], int] = {}
        for text, number in texts:
            for pair in itertools.pairwise(text):
                pairs[pair] = pairs.get(pair, 0) + number
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        for text, _ in texts:
            at = 0
            while at < len(text) - 1:
                if (text[at], text[at + 1]) == best:
                    text[at : at + 2] = [256 + len(merges)]
                at += 1
        merges.append(best)
    return merges


def test_writings_hold_every_script():
    source = random.Random(18)
    text = "".join(words(source, 40) for _ in range(DOCUMENTS))
    assert all(set(letters) & set(text) for letters in LETTERS.values())
