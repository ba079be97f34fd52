"""What is held out: whole documents by their hash, which no further document changes, or the end of a text."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_chat.errors import DataError
from tinygrad_chat.text import split as module
from tinygrad_chat.text import writing
from tinygrad_chat.text.corpora import Corpus
from tinygrad_chat.text.data import open_data, tokenize
from tinygrad_chat.text.dataset import Dataset
from tinygrad_chat.text.split import DOCUMENTS, END
from tinygrad_chat.text.token_store import TokenStore
from tinygrad_chat.text.tokenizers import ByteTokenizer

texts = st.lists(st.text("ab\u00e9", max_size=6), min_size=1, max_size=40)


def is_held_out(text: str) -> bool:
    return int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) < 2**64 / 10


def stored(documents: list[str], split: str = "auto", tokenizer: str | ByteTokenizer = "bytes") -> TokenStore:
    return tokenize(Corpus("made", lambda any_bytes=False: ([text] for text in documents)), tokenizer, split)


def sides(store: TokenStore) -> tuple[list[str], list[str]]:
    """The texts to train on and those held out, by the store's own index of documents."""
    ends = [*store.document_starts[1:].tolist(), len(store.tokens)]
    documents = [
        (start < store.held_out_from, store.tokenizer.decode(store.tokens[start + 1 : end].tolist()))
        for start, end in zip(store.document_starts.tolist(), ends, strict=True)
    ]
    return [text for kept, text in documents if kept], [text for kept, text in documents if not kept]


@given(texts, st.integers(1, 7), st.sampled_from(["bytes", "characters"]))
def test_documents_are_held_out_by_their_hash_in_the_order_of_the_corpus(documents, chunk: int, kind: str):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "CHUNK", chunk)
        store = stored(documents, DOCUMENTS, kind)
    kept, held_out = ([text for text in documents if is_held_out(text) == side] for side in (False, True))
    assert sides(store) == (kept, held_out)
    assert store.split == DOCUMENTS


@given(texts, texts)
def test_documents_that_are_added_move_no_other_to_the_other_side(documents: list[str], more: list[str]):
    before, after = (set(sides(stored(each, DOCUMENTS))[1]) for each in (documents, [*more, *documents]))
    assert before == after & set(documents)


@given(texts)
def test_at_the_end_the_last_tenth_of_the_tokens_is_held_out_wherever_it_begins(documents: list[str]):
    store = stored(documents, END)
    bos = [256]
    assert store.tokens.tolist() == [token for text in documents for token in (*bos, *text.encode())]
    assert store.held_out_from == len(store.tokens) - len(store.tokens) // 10


def test_by_itself_it_is_by_documents_where_there_are_enough_and_none_tips_the_scales():
    documents = [f"document {number}" for number in range(60)]
    assert 3 <= sum(map(is_held_out, documents)) <= 12
    assert stored(documents).split == DOCUMENTS
    assert stored(documents[:49]).split == END
    heavy = next(text for number in range(99) if is_held_out(text := "x" * 500 + str(number)))
    assert stored([*documents, heavy]).split == END
    assert stored(documents[:8] * 40).split == END  # the same few words again are no more documents
    assert stored([]).split == END


@pytest.mark.parametrize("held_out", [49, 50, 200, 201])
def test_the_scales_are_tipped_by_half_or_twice_the_share(held_out: int):
    even = module.choose_split("auto", documents=50, bytes=1000, held_out=held_out) == DOCUMENTS
    assert even == (50 <= held_out <= 200)
    assert module.choose_split("auto", documents=49, bytes=1000, held_out=100) == END


def test_each_split_of_a_text_is_kept_by_itself_and_found_again(tmp_path: Path, cache: Path):
    for number in range(60):
        (tmp_path / f"{number:02}.txt").write_text(f"document {number}")
    for _ in range(2):
        stores = [open_data(str(tmp_path), "bytes", split=split) for split in ("auto", DOCUMENTS, END)]
        assert [store.split for store in stores] == [DOCUMENTS, DOCUMENTS, END]
        assert isinstance(stores[0].tokens, np.memmap)
        assert len(list((cache / "tokens").iterdir())) == 2


def test_documents_too_short_for_a_window_on_one_side_are_refused_with_what_would_do():
    documents = [f"document {number}" for number in range(60)]
    held_out = sum(len(text) + 1 for text in documents if is_held_out(text))
    message = f"at least 64 tokens for --context 63 in the documents .* received {held_out}; .* --split end"
    with pytest.raises(DataError, match=message):
        Dataset.from_store(stored(documents), context=63)
    assert Dataset.from_store(stored(documents, END), context=63).split == END
