"""Several processes write the tokens that one does, whatever becomes of them."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.faults import at_system_call, count_system_calls, fail, kill_at_system_call
from tinygrad_chat.errors import DataError, VocabularyError
from tinygrad_chat.text import encoding_processes as module
from tinygrad_chat.text import writing
from tinygrad_chat.text.data import open_data
from tinygrad_chat.text.encoding_processes import encode_in_processes, how_many_processes
from tinygrad_chat.text.token_store import DOCUMENTS, TOKENS
from tinygrad_chat.text.tokenizers import CharacterTokenizer, NumberTokenizer, Tokenizer

TEXTS = [["1 22", "2 3"], [], ["4 " * 500, "5"], [""], ["6"]]
NUMBERS = NumberTokenizer(1 << 24, bos=0)


def encoded(documents: list[list[str]], tokenizer: Tokenizer, processes: int) -> list[list[int]]:
    """The tokens of each document."""
    found: list[list[int]] = []
    for tokens in encode_in_processes(documents, tokenizer, processes):
        if tokens is None:
            found.append([])
        else:
            assert tokens.dtype == np.min_scalar_type(tokenizer.size - 1)
            found[-1] += tokens.tolist()
    return found


def alone(documents: list[list[str]], tokenizer: Tokenizer) -> list[list[int]]:
    return [tokenizer.encode("".join(document)).tolist() for document in documents]


class Process:
    """An encoding process within this one, which answers so many questions and then dies in the middle of an answer."""

    def __init__(self, questions: int) -> None:
        self.stdin = SimpleNamespace(write=self._answer, flush=lambda: None, close=lambda: None)
        self.stdout = io.BytesIO()
        self._questions, self._tokenizer = questions, b""

    def _answer(self, content: bytes) -> None:
        if self._questions < 0:
            raise BrokenPipeError
        if not self._tokenizer:
            self._tokenizer, _, content = content.partition(b"\n")
        answer = io.BytesIO()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(signal, "signal", lambda *_: None)
            patch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(self._tokenizer + b"\n" + content)))
            patch.setattr(sys, "stdout", SimpleNamespace(buffer=answer))
            module.main()
        self._questions -= 1
        whole = answer.getvalue()
        self.stdout.seek(0)
        self.stdout.truncate()
        self.stdout.write(whole if self._questions >= 0 else whole[:-1])
        self.stdout.seek(0)

    def kill(self) -> None: ...

    def wait(self) -> None: ...


@given(
    st.lists(st.lists(st.text("1 2", max_size=2), max_size=3), max_size=6),
    st.lists(st.integers(0, 5), min_size=1, max_size=4),
    st.integers(1, 9),
)
def test_tokens_come_in_order_whoever_encodes_and_whoever_dies(documents, questions: list[int], chunk: int):
    left = iter(questions)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", chunk)
        patch.setattr(subprocess, "Popen", lambda *_, **__: Process(next(left)))
        assert encoded(documents, NUMBERS, len(questions)) == alone(documents, NUMBERS)


@pytest.mark.profile("ci")
def test_the_store_has_the_same_bytes_for_any_number_of_processes(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    path, found = tmp_path / "a.jsonl", []
    path.write_text("".join(f'{{"text": "{number} {number % 7}"}}\n' for number in range(300)))
    monkeypatch.setattr(module, "CHUNK", 100)
    for processes in (1, 3):
        monkeypatch.setattr(writing, "how_many_processes", lambda *_, number=processes: number)
        monkeypatch.setenv("TINYGRAD_CHAT_CACHE", str(cache / str(processes)))
        store = open_data(str(path), NUMBERS)
        assert store.split == "documents"
        (folder,) = (cache / str(processes) / "tokens").iterdir()
        found.append([(folder / name).read_bytes() for name in (TOKENS, DOCUMENTS)])
    assert found[0] == found[1]


def test_a_process_that_is_killed_costs_nothing_but_time(monkeypatch: pytest.MonkeyPatch):
    started: list[Any] = []
    start = subprocess.Popen

    def watched(*arguments: Any, **options: Any) -> Any:
        started.append(start(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", watched)
    monkeypatch.setattr(module, "CHUNK", 2)
    tokens = encode_in_processes(TEXTS, NUMBERS, 1)
    found = [next(tokens), next(tokens)]
    os.kill(started[0].pid, signal.SIGKILL)
    found += tokens
    assert sum(each is None for each in found) == len(TEXTS)
    assert np.concatenate([each for each in found if each is not None]).tolist() == [1, 222, 3, *[4] * 500, 5, 6]
    assert started[0].returncode == -signal.SIGKILL


@pytest.mark.profile("ci")
@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot copy a process")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a file whose close() was to fail
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_kill_or_a_failing_call_while_others_encode_leaves_nothing_that_misleads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path, calls = tmp_path / "a.txt", "calls"
    path.write_text("1 22 333\n" * 20)
    monkeypatch.setattr(module, "CHUNK", 50)
    monkeypatch.setattr(writing, "how_many_processes", lambda *_: 2)
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: Process(100))

    def load() -> None:
        assert open_data(str(path), NUMBERS).tokens.tolist() == [0, *[1, 22, 333] * 20]

    def stores() -> list[Path]:
        return [each for each in (tmp_path / calls / "tokens").iterdir() if each.name[0] != "."]

    monkeypatch.setenv("TINYGRAD_CHAT_CACHE", str(tmp_path / calls))
    total = count_system_calls(load)
    for number in range(1, total, 9):
        calls = str(number)
        monkeypatch.setenv("TINYGRAD_CHAT_CACHE", str(tmp_path / calls))
        if number % 2:
            assert kill_at_system_call(number, load)
        else:
            with at_system_call(number, fail), contextlib.suppress(DataError):
                load()
        load()
        assert len(stores()) == 1


def test_a_process_ends_with_the_one_that_has_started_it():
    with module._Encoder(NUMBERS) as encoder:
        found = encoder.encode(["1 2"])
        assert found is not None
        assert [tokens.tolist() for tokens in found] == [[1, 2]]
        encoder._questions.close()  # as the system does when a process dies, however that comes about
        assert encoder._process.wait(timeout=60) == 0


@pytest.mark.parametrize("answer", [b"", b"\3\0", b"\3" + 7 * b"\0", b"\3" + 7 * b"\0" + b"\1\2"])
def test_an_answer_that_was_cut_off_is_none(answer: bytes):
    with module._Encoder(NUMBERS) as encoder:
        encoder._answers.close()
        encoder._answers = io.BytesIO(answer)
        assert encoder.encode(["1 2 3"]) is None


def test_what_cannot_be_encoded_is_the_error_of_one_process_and_no_other_is_left_behind(
    monkeypatch: pytest.MonkeyPatch,
):
    started: list[Process] = []
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: started.append(Process(-1)) or started[-1])
    ended: list[Process] = []
    monkeypatch.setattr(Process, "wait", lambda self: ended.append(self))
    with pytest.raises(VocabularyError, match="'b'"):
        encoded([["a"], ["ab"]], CharacterTokenizer("a"), 2)
    assert ended == started[::-1]


def test_processes_are_for_slow_tokenizers_and_long_texts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert how_many_processes(NUMBERS, 1 << 30) == 1
    monkeypatch.setattr(NumberTokenizer, "slow", True)
    sizes = (0, 2 * module.BYTES_EACH - 1, 2 * module.BYTES_EACH, 4 * module.BYTES_EACH, 1 << 40)
    assert [how_many_processes(NUMBERS, size) for size in sizes] == [1, 1, 2, 4, 5]
    monkeypatch.setattr(os, "cpu_count", lambda: 192)
    assert how_many_processes(NUMBERS, 1 << 40) == module.MAX_PROCESSES
