"""Tokenizers: no text is lost, bytes are counted truly, and what is unknown is named."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_chat.errors import CheckpointError, ConfigError, VocabularyError
from tinygrad_chat.text.tokenizers import (
    BPETokenizer,
    ByteTokenizer,
    CharacterTokenizer,
    NumberTokenizer,
    Tokenizer,
    tokenizer_from_state,
)

texts = st.text(min_size=1)


def tokenizers_for(text: str) -> list[Tokenizer]:
    merged = BPETokenizer.from_merges([(97, 98), (32, 256), (0xC3, 0xA9)], special_tokens=["<|bos|>"])
    return [CharacterTokenizer(text), ByteTokenizer(), merged]


@given(texts)
def test_decoding_undoes_encoding(text):
    for tokenizer in tokenizers_for(text):
        assert tokenizer.decode(tokenizer.encode(text).tolist()) == text


@given(texts)
def test_bytes_of_all_tokens_sum_to_the_texts_bytes(text):
    for tokenizer in tokenizers_for(text):
        assert tokenizer.bytes_per_token()[tokenizer.encode(text)].sum() == len(text.encode())


@given(texts)
def test_every_token_is_below_the_size_and_bos_is_no_text(text):
    for tokenizer in tokenizers_for(text):
        tokens = tokenizer.encode(text)
        assert tokens.max() < tokenizer.bos == tokenizer.size - 1
        assert tokenizer.decode([tokenizer.bos]) == ""
        assert tokenizer.bytes_per_token()[tokenizer.bos] == 0
        assert len(tokenizer.bytes_per_token()) == tokenizer.size


@given(texts)
def test_a_tokenizer_survives_json(text):
    for tokenizer in tokenizers_for(text):
        loaded = tokenizer_from_state(json.loads(json.dumps(tokenizer.state())))
        np.testing.assert_array_equal(loaded.encode(text), tokenizer.encode(text))


@pytest.mark.parametrize(
    ("text", "character", "offset"), [("abcz", "z", 3), ("ab\U0001f600", "\U0001f600", 2), ("Ab", "A", 0)]
)
def test_an_unknown_character_is_named_with_its_offset(text, character, offset):
    with pytest.raises(VocabularyError) as caught:
        CharacterTokenizer("abc").encode(text)
    message = str(caught.value)
    assert repr(character) in message
    assert f"U+{ord(character):04X}" in message
    assert f"offset {offset} " in message


@given(st.lists(st.text(max_size=6), max_size=6))
def test_a_document_in_pieces_has_the_tokens_of_the_whole(pieces):
    for tokenizer in tokenizers_for("".join(pieces)):
        tokens = [token for part in tokenizer.encode_document(pieces) for token in part.tolist()]
        assert tokens == tokenizer.encode("".join(pieces)).tolist()


@given(st.lists(st.text("0123456789 \n", max_size=4), max_size=8))
def test_a_number_may_go_on_in_the_next_piece(pieces):
    tokenizer = NumberTokenizer(10**6, bos=0)
    try:
        expected = tokenizer.encode("".join(pieces)).tolist()
    except VocabularyError:
        with pytest.raises(VocabularyError):
            list(tokenizer.encode_document(pieces))
    else:
        assert [token for part in tokenizer.encode_document(pieces) for token in part.tolist()] == expected


def test_special_tokens_have_names():
    assert ByteTokenizer().special_tokens == {"<|bos|>": 256}
    assert CharacterTokenizer("abc").special_tokens == {"<|bos|>": 3}
    assert NumberTokenizer(300, bos=291).special_tokens == {"<|bos|>": 291}


def test_states_of_earlier_versions_make_the_same_tokenizers():
    assert tokenizer_from_state({"kind": "characters", "alphabet": "\nab"}).encode("b\na").tolist() == [2, 0, 1]
    assert tokenizer_from_state({"kind": "bytes"}).encode("a").tolist() == [97]
    assert tokenizer_from_state({"kind": "numbers", "size": 9, "bos": 8}).bos == 8


def test_an_alphabet_without_characters_knows_only_the_empty_text():
    assert CharacterTokenizer("").encode("").tolist() == []
    with pytest.raises(VocabularyError):
        CharacterTokenizer("").encode("a")


def test_tokens_take_the_smallest_unsigned_type():
    assert CharacterTokenizer("abc").encode("abc").dtype == np.uint8
    assert CharacterTokenizer(map(chr, range(300))).encode("a").dtype == np.uint16


def test_a_character_of_several_bytes_streams_once_it_is_complete():
    tokenizer = ByteTokenizer()
    assert list(tokenizer.decode_stream(tokenizer.encode("aé日").tolist())) == ["a", "é", "日"]
    assert list(tokenizer.decode_stream([0x61, 0xC3])) == ["a", "\ufffd"]  # the end comes in the middle of one
    assert list(tokenizer.decode_stream([0xFF, 0x61])) == ["\ufffd", "a"]


@pytest.mark.parametrize(
    "state", [{}, {"kind": "words"}, {"kind": "characters"}, {"kind": "characters", "alphabet": 3}]
)
def test_a_description_that_makes_no_tokenizer_is_refused(state):
    with pytest.raises(CheckpointError, match="expected a description"):
        tokenizer_from_state(state)


def test_numbers_are_tokens_and_nothing_else_is():
    tokenizer = tokenizer_from_state(json.loads(json.dumps(NumberTokenizer(300, bos=291).state())))
    assert tokenizer.encode(" 7 0\n299 ").tolist() == [7, 0, 299]
    assert tokenizer.encode("").tolist() == []
    assert tokenizer.decode([7, 291, 299]) == " 7 299"  # goes on from a prompt
    assert tokenizer.bytes_per_token()[[7, 291]].tolist() == [1, 0]
    for text in ("300", "-1", "1.5", "x", "²"):
        with pytest.raises(VocabularyError, match="expected numbers from 0 to 299"):
            tokenizer.encode(text)


@pytest.mark.parametrize(("size", "bos"), [(0, 0), (5, 5), (5, -1), (2**40, 0), ("5", 0), (None, None)])
def test_a_description_of_numbers_that_cannot_be_is_refused(size, bos):
    with pytest.raises(CheckpointError, match="expected a description"):
        tokenizer_from_state({"kind": "numbers", "size": size, "bos": bos})


@pytest.mark.parametrize(
    "tokenizer", [ByteTokenizer(), CharacterTokenizer("abc"), NumberTokenizer(9, bos=8)], ids=lambda x: x.kind
)
def test_what_is_no_token_is_not_decoded(tokenizer):
    for wrong in (-1, tokenizer.size):
        message = f"^decode: expected tokens from 0 to {tokenizer.size - 1}, received {wrong}$"
        with pytest.raises(VocabularyError, match=message):
            tokenizer.decode([1, wrong])


@pytest.mark.parametrize("bos", [-1, 9])
def test_a_number_that_begins_documents_is_one_of_the_tokens(bos):
    with pytest.raises(ConfigError, match=r"^NumberTokenizer: bos: expected"):
        NumberTokenizer(9, bos=bos)
