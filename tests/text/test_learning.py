"""A tokenizer is learned from a corpus once, and anew where the corpus is another."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

import pytest

from tinygrad_chat.files import CACHE_VARIABLE
from tinygrad_chat.text import learning
from tinygrad_chat.text.conversations import Conversation
from tinygrad_chat.text.conversations.document import ChatDocument
from tinygrad_chat.text.corpora import Corpus, open_corpus
from tinygrad_chat.text.data import tokenize
from tinygrad_chat.text.learning import learn_tokenizer, some_documents
from tinygrad_chat.text.split import end_from, is_held_out
from tinygrad_chat.text.tokenizers import BPETokenizer

LONG_AGO = 10**18  # nanoseconds


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr("tinygrad_chat.text.token_cache.COARSEST_CLOCK", -(10**18))  # every file is old enough
    file = tmp_path / "text.txt"
    file.write_text("the cat sat on the mat " * 20)
    return file


def learned(path: Path, vocabulary: int) -> list[bytes]:
    tokenizer = learn_tokenizer([open_corpus(str(path))], vocabulary)
    assert isinstance(tokenizer, BPETokenizer)
    return tokenizer.tokens


def test_what_was_learned_is_found_again_and_a_changed_text_is_learned_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch
):
    first = learned(path, vocabulary=270)
    calls = []
    train_bpe = learning.train_bpe
    monkeypatch.setattr(learning, "train_bpe", lambda *a, **k: calls.append(1) or train_bpe(*a, **k))
    assert learned(path, vocabulary=270) == first
    assert not calls
    assert learned(path, vocabulary=271) != first
    path.write_text("another text that was written here " * 20)
    os.utime(path, ns=(LONG_AGO, LONG_AGO))
    assert learned(path, vocabulary=270) != first
    assert len(calls) == 2


def test_what_was_learned_of_other_pieces_is_another_tokenizer(path: Path):
    corpora = [open_corpus(str(path))]
    for pattern in ("nanochat", "qwen2", "nanochat"):
        found = learn_tokenizer(corpora, 270, pattern=pattern)
        assert isinstance(found, BPETokenizer)
        assert found.pattern == pattern


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"kind": "bpe"}', b'{"kind": "words"}', b"[" * 10**5])
def test_what_is_kept_and_damaged_is_learned_anew(path: Path, content: bytes):
    first = learned(path, vocabulary=270)
    (kept,) = (path.parent / "cache" / "tokenizers").iterdir()
    kept.write_bytes(content)
    assert learned(path, vocabulary=270) == first


def test_where_nothing_can_be_kept_it_is_learned_all_the_same(path: Path):
    (path.parent / "cache").write_text("a file")
    assert len(learned(path, vocabulary=270)) == 270


def test_old_ones_make_room(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(learning, "MAX_KEPT", 2)
    for vocabulary in range(266, 271):
        learned(path, vocabulary=vocabulary)
    assert len(list((path.parent / "cache" / "tokenizers").iterdir())) == 2


def test_of_a_long_corpus_the_first_documents_count(tmp_path: Path):
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(name * 100)
    documents = open_corpus(str(tmp_path)).documents()
    assert ["".join(document) for document in some_documents(documents, most=150)] == ["a" * 100, "b" * 50]


@pytest.mark.parametrize("split", ["auto", "documents"])
def test_documents_that_are_held_out_do_not_count(tmp_path: Path, split: str):
    texts = [f"{number} thethethe" for number in range(200)]
    other = [text for text in (f"{number} zzzz" for number in range(60)) if is_held_out(sha256(text.encode()).digest())]
    texts += other
    assert other
    corpus = Corpus("texts", lambda any_bytes=False: ([text] for text in texts))
    tokenizer = learn_tokenizer([corpus], 300, split=split)
    assert isinstance(tokenizer, BPETokenizer)
    assert b" thethethe" in tokenizer.tokens
    assert b"zz" not in tokenizer.tokens


def test_the_end_that_is_held_out_of_each_text_does_not_count():
    def corpus(word: str, last: str) -> Corpus:
        text = word * 900 + last * 100
        return Corpus("text", lambda any_bytes=False: iter([[text[:500], text[500:]]]))

    tokenizer = learn_tokenizer([corpus(" ab", " xx"), corpus(" cd", " yy")], 300)
    assert isinstance(tokenizer, BPETokenizer)
    assert {b" ab", b" cd"} < set(tokenizer.tokens)
    assert not {b"xx", b"yy", b" x", b" y"} & set(tokenizer.tokens)


def test_the_conversations_that_are_held_out_at_the_end_do_not_count():
    said = [("the the the", "the the")] * 45 + [("zz zz zz", "zz zz")] * 5
    chats = [ChatDocument(Conversation.of(*messages)) for messages in said]
    corpus = Corpus("chats", lambda any_bytes=False: iter(chats), conversations=True)
    for split in ("auto", "end"):
        tokenizer = learn_tokenizer([corpus], 270, split=split)
        assert isinstance(tokenizer, BPETokenizer)
        assert b"the" in tokenizer.tokens
        assert b"zz" not in tokenizer.tokens
    alone = learn_tokenizer([Corpus("chat", lambda any_bytes=False: iter(chats[-1:]), conversations=True)], 270)
    assert isinstance(alone, BPETokenizer)
    assert b"zz" in alone.tokens


def test_of_a_single_conversation_the_end_is_held_out():
    chat = ChatDocument(Conversation.of("the the the", "the the " * 20))
    corpus = Corpus("chat", lambda any_bytes=False: iter([chat]), conversations=True)
    store = tokenize(corpus, learn_tokenizer([corpus], 270))
    assert store.held_out_from == end_from(len(store.tokens)) < len(store.tokens)
