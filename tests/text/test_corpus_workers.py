"""Embedded corpora that processes make become the tokenizer and the tokens that they become here, whoever dies."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

from tinygrad_chat.text import corpus_worker, corpus_workers, learning
from tinygrad_chat.text.corpora import Corpus, corpus_of_conversations, open_corpus
from tinygrad_chat.text.corpus_workers import CorpusWorkers, are_embedded
from tinygrad_chat.text.data import open_data
from tinygrad_chat.text.embedded import CORPORA
from tinygrad_chat.text.learning import learn_tokenizer
from tinygrad_chat.text.processes import as_line, messages_in, start_process
from tinygrad_chat.text.token_store import TokenStore
from tinygrad_chat.text.tokenizers import Tokenizer

NAMES = ["tutor", "self"]
FEW = 120
VOCABULARY = 300


class Process:
    """A process within this one, which says so many things and then dies."""

    def __init__(self, most: float = float("inf")) -> None:
        questions, asks = os.pipe()
        answers, says = os.pipe()
        self.stdin, self.stdout = os.fdopen(asks, "wb"), os.fdopen(answers, "rb")
        self._questions, self._says, self._left = os.fdopen(questions, "rb"), os.fdopen(says, "wb"), most
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError), self._says, self._questions:
            if self._left:
                corpus_worker.make(messages_in(self._questions), self._tell)

    def _tell(self, message: dict[str, Any]) -> None:
        self._says.write(as_line(message) if self._left >= 1 else as_line(message)[:-5])
        self._says.flush()
        self._left -= 1
        if self._left <= 0:
            raise BrokenPipeError

    def kill(self) -> None:
        with contextlib.suppress(OSError):
            self.stdin.close()

    def wait(self) -> None:
        self._thread.join()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Process]]:
    """Make corpora small, and let processes be within this one that say so many things each."""
    for name in NAMES:
        corpus = CORPORA[name]
        few = dataclasses.replace(corpus, make=lambda seed, make=corpus.make: islice(make(seed), FEW), count=FEW)
        monkeypatch.setitem(CORPORA, name, few)
    monkeypatch.setattr(corpus_worker, "OFTEN", 50)
    monkeypatch.setattr("tinygrad_chat.text.token_cache.remove_abandoned", lambda: None)  # one process holds all locks
    processes: list[Process] = []

    def start(*most: float) -> list[Process]:
        left = iter(most)
        monkeypatch.setattr(
            corpus_workers, "start_process", lambda _: processes.append(Process(next(left))) or processes[-1]
        )
        return processes

    return start


def learned(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Tokenizer, list[TokenStore]]:
    """The tokenizer of all, and what each is by it."""
    monkeypatch.setenv("TINYGRAD_CHAT_CACHE", str(folder))
    tokenizer = learn_tokenizer([open_corpus(name) for name in NAMES], VOCABULARY)
    return tokenizer, [open_data(name, tokenizer) for name in NAMES]


@pytest.mark.profile("ci")
@pytest.mark.parametrize("most", [(9, 9), (0, 9), (9, 1), (2.5, 9)], ids=["all live", "at once", "early", "in a word"])
def test_the_tokenizer_and_the_tokens_are_those_of_one_process_whoever_dies(
    started: Callable[..., list[Process]],
    most: tuple[float, float],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    with monkeypatch.context() as patch:
        patch.setattr(learning, "are_embedded", lambda _: False)
        expected, alone = learned(tmp_path / "alone", monkeypatch)
    processes = started(*most)
    tokenizer, stores = learned(tmp_path / "side by side", monkeypatch)
    assert len(processes) == 2
    assert tokenizer.state() == expected.state()
    for store, other in zip(stores, alone, strict=True):
        assert store.contents == other.contents
        assert store.held_out_from == other.held_out_from
        for name in ("tokens", "document_starts", "marks"):
            np.testing.assert_array_equal(getattr(store, name), getattr(other, name))


def test_each_is_made_once_and_it_is_told_how_much_there_is(
    started: Callable[..., list[Process]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    started(9, 9)
    made, told = list[str](), list[tuple[str, int, int]]()
    for name in NAMES:
        corpus = CORPORA[name]
        watched = lambda seed, name=name, make=corpus.make: made.append(name) or make(seed)  # noqa: E731
        monkeypatch.setitem(CORPORA, name, dataclasses.replace(corpus, make=watched))
    monkeypatch.setenv("TINYGRAD_CHAT_CACHE", str(tmp_path))
    corpora = [open_corpus(name) for name in NAMES]
    tokenizer = learn_tokenizer(corpora, VOCABULARY, progress=lambda *each: told.append(each))
    for name in NAMES:
        open_data(name, tokenizer)
    assert sorted(made) == sorted(NAMES)
    making_of = [each for each in told if each[0] == "making"]
    assert making_of[0] == ("making", 0, 2 * FEW)
    assert making_of[-1] == ("making", 2 * (FEW // 50 * 50), 2 * FEW)
    assert learn_tokenizer(corpora, VOCABULARY).state() == tokenizer.state()
    assert len(made) == 2


def test_more_text_than_counts_is_read_here(started: Callable[..., list[Process]], monkeypatch: pytest.MonkeyPatch):
    started(9)
    monkeypatch.setattr(learning, "MAX_LEARNED", 1000)
    assert learning._learned_side_by_side([open_corpus("self")], VOCABULARY, "nanochat", "auto", None) is None


def test_where_no_process_can_be_started_all_is_made_here(
    started: Callable[..., list[Process]], monkeypatch: pytest.MonkeyPatch
):
    def start(module: str) -> Process:
        raise BlockingIOError

    started()
    monkeypatch.setattr(corpus_workers, "start_process", start)
    assert learning._learned_side_by_side([open_corpus("self")], VOCABULARY, "nanochat", "auto", None) is None


def test_only_what_a_name_leads_to_is_made_elsewhere():
    own = corpus_of_conversations(list(islice(CORPORA["self"].conversations(), 2)), "self")
    text = Corpus("text", lambda any_bytes=False: iter([["a"]]))
    assert are_embedded([open_corpus("self"), open_corpus("python")])
    for other in (own, text, open_corpus(["self", "tutor"]), open_corpus("pydoc")):
        assert not are_embedded([open_corpus("self"), other])


def test_processes_end_with_whoever_waits_for_them(started: Callable[..., list[Process]]):
    processes = started(9, 9)
    with pytest.raises(KeyboardInterrupt), CorpusWorkers(NAMES, "nanochat", "auto"):
        raise KeyboardInterrupt
    assert not any(process._thread.is_alive() for process in processes)


@pytest.mark.profile("ci")
def test_a_worker_ends_with_what_it_is_asked():
    process = start_process("tinygrad_chat.text.corpus_worker")
    assert process.communicate(timeout=60)[0] == b""
    assert process.returncode == 1
