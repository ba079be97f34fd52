"""Data is read once, tokenized once, and never served stale, whatever becomes of the cache."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from bench.faults import at_system_call, count_system_calls, fail, kill_at_system_call
from tests.profiles import CI, DEEP
from tinygrad_chat.errors import DataError, UsageError, VocabularyError
from tinygrad_chat.text import data as module
from tinygrad_chat.text import token_cache
from tinygrad_chat.text.corpora import Corpus, Document
from tinygrad_chat.text.data import open_data, tokenize
from tinygrad_chat.text.dataset import Dataset
from tinygrad_chat.text.tokenizers import ByteTokenizer, CharacterTokenizer

TEXT = "naïve text\n" * 50

kinds = pytest.mark.parametrize("kind", ["characters", "bytes"])
needs_fork = pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot copy a process")


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which corpora were read, in order."""
    found: list[str] = []
    opened = module.open_corpus

    def open_counted(*arguments: str, **options: object) -> Corpus:
        corpus = opened(*arguments, **options)  # type: ignore[arg-type]

        def documents(any_bytes: bool = False) -> Iterator[Document]:
            found.append(corpus.name)
            return corpus.documents(any_bytes=any_bytes)

        return dataclasses.replace(corpus, documents=documents)

    monkeypatch.setattr(module, "open_corpus", open_counted)
    return found


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are older than any tick of the clock at once."""
    monkeypatch.setattr(token_cache, "COARSEST_CLOCK", -(10**9))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def stores(cache: Path) -> list[Path]:
    return sorted((cache / "tokens").iterdir())


@kinds
@pytest.mark.usefixtures("settled")
def test_data_is_read_once_and_then_no_more(kind: str, path: Path, passes: list[str]):
    first = open_data(str(path), kind)
    assert len(passes) == 1
    again, resumed = open_data(str(path), kind), open_data(str(path), first.tokenizer)
    assert len(passes) == 1
    for store in (again, resumed):
        assert store.tokenizer.state() == first.tokenizer.state()
        assert store.contents == first.contents
        np.testing.assert_array_equal(store.tokens, first.tokens)
        np.testing.assert_array_equal(store.document_starts, first.document_starts)


@kinds
def test_a_file_that_was_written_just_now_is_hashed_again_but_not_tokenized(
    kind: str, path: Path, passes: list[str], monkeypatch: pytest.MonkeyPatch
):
    open_data(str(path), kind)
    monkeypatch.setattr(module, "make_store", None)
    open_data(str(path), kind)
    assert len(passes) == 2


@pytest.mark.usefixtures("settled")
def test_a_file_that_was_only_touched_is_hashed_once(path: Path, passes: list[str], monkeypatch: pytest.MonkeyPatch):
    open_data(str(path), "characters")
    os.utime(path, (1, 1))
    monkeypatch.setattr(module, "make_store", None)
    for _ in range(2):
        open_data(str(path), "characters")
    assert len(passes) == 2


@kinds
def test_a_change_within_the_same_second_of_the_same_length_with_the_same_time_is_noticed(kind: str, path: Path):
    before, status = open_data(str(path), kind), path.stat()
    with path.open("r+") as file:  # the same inode
        file.write("N")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = open_data(str(path), kind)
    assert after.contents.sha256 != before.contents.sha256
    assert after.tokenizer.decode(after.tokens.tolist()) == path.read_text(encoding="utf-8")


@pytest.mark.usefixtures("settled")
def test_an_old_files_change_is_noticed_by_any_of_its_marks(path: Path):
    status = path.stat()
    open_data(str(path), "characters")
    replacement = path.with_name("new")
    replacement.write_text("other text!\n" * 50)
    os.truncate(replacement, status.st_size)
    os.utime(replacement, ns=(status.st_atime_ns, status.st_mtime_ns))
    replacement.rename(path)
    store = open_data(str(path), "characters")
    assert store.tokenizer.decode(store.tokens.tolist()).startswith("other text!\n")


@pytest.mark.usefixtures("settled")
def test_a_folder_with_a_file_more_is_another_corpus(path: Path, passes: list[str]):
    open_data(str(path.parent), "bytes")
    (path.parent / "more.txt").write_text("more")
    assert open_data(str(path.parent), "bytes").contents.documents == 2
    assert len(passes) == 2


def test_the_same_text_in_other_documents_has_other_tokens(tmp_path: Path):
    for name, texts in {"one": ["ab", "c"], "two": ["a", "bc"]}.items():
        (tmp_path / name).mkdir()
        for number, text in enumerate(texts):
            (tmp_path / name / f"{number}.txt").write_text(text)
    one, two = (open_data(str(tmp_path / name), "characters") for name in ("one", "two"))
    assert one.contents.sha256 == two.contents.sha256
    assert (one.tokens.tolist(), two.tokens.tolist()) == ([3, 0, 1, 3, 2], [3, 0, 3, 1, 2])


@pytest.mark.usefixtures("settled")
def test_rows_are_told_apart_by_their_field(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"text": "ab", "body": "cde"}))
    assert open_data(str(path), "characters").tokens.tolist() == [2, 0, 1]
    assert open_data(str(path), "characters", text_field="body").tokens.tolist() == [3, 0, 1, 2]


def test_one_text_under_two_names_is_kept_once_and_each_has_its_name(path: Path, cache: Path):
    copy = path.with_name("copy.txt")
    copy.write_bytes(path.read_bytes())
    assert [open_data(str(each), "bytes").source for each in (path, copy, path)] == [str(path), str(copy), str(path)]
    assert len(stores(cache)) == 1


@pytest.mark.usefixtures("settled")
def test_another_tokenizer_has_tokens_of_its_own(path: Path, passes: list[str]):
    wider = CharacterTokenizer("naïve text\n!?")
    stored = [open_data(str(path), tokenizer).tokens.tolist() for tokenizer in ("characters", wider, "bytes")]
    assert [open_data(str(path), tokenizer).tokens.tolist() for tokenizer in ("characters", wider, "bytes")] == stored
    assert len(passes) == 3
    with pytest.raises(VocabularyError, match="'n'"):
        open_data(str(path), CharacterTokenizer("abc"))


def test_a_text_that_lost_a_character_has_a_new_alphabet_without_it(path: Path):
    path.write_text("abc" * 30)
    before = open_data(str(path), "characters")
    path.write_text("ab" * 45)
    assert open_data(str(path), before.tokenizer).tokenizer.size == 4
    assert open_data(str(path), "characters").tokenizer.size == 3


@pytest.mark.usefixtures("settled")
def test_what_is_no_text_stays_refused_when_its_bytes_are_known(tmp_path: Path):
    path = tmp_path / "latin.txt"
    path.write_bytes(b"caf\xff\xe9" * 30)
    open_data(str(path), "bytes")
    with pytest.raises(DataError, match="not UTF-8"):
        open_data(str(path), "characters")


def test_a_tokenizer_that_nobody_knows_is_refused(path: Path):
    with pytest.raises(UsageError, match="expected characters or bytes, received 'words'"):
        open_data(str(path), "words")


def test_progress_is_told_of_each_mebibyte(tmp_path: Path):
    path = tmp_path / "long.txt"
    path.write_bytes(b"text" * (3 << 18))
    told: list[tuple[str, int, int]] = []
    for _ in range(2):
        open_data(str(path), "characters", progress=lambda *progress: told.append(progress))
    done = [(mebibytes << 20, 3 << 20) for mebibytes in (1, 2, 3)]
    assert told == [("tokenizing", *each) for each in done] + [("reading", *each) for each in done]


def test_a_store_that_is_being_written_is_not_taken_for_abandoned(path: Path, cache: Path):
    def document() -> Iterator[str]:
        yield "text"
        path.with_name("other.txt").write_text("other text")
        open_data(str(path.with_name("other.txt")), "characters")  # and clears what was abandoned
        yield "and more"

    tokenize(Corpus("made", lambda any_bytes=False: iter([document()]), (path,)), "bytes")
    assert len(stores(cache)) == 2


def test_documents_that_are_in_no_file_are_not_kept(cache: Path):
    Dataset.from_texts(["text" * 30], ByteTokenizer(), context=8)
    assert not (cache / "tokens").exists()


def block(cache: Path) -> None:
    cache.rmdir()
    cache.write_text("a file where a folder should be")


def spoil_the_notes(cache: Path) -> None:
    (cache / "corpora").write_text("a file where a folder should be")


@pytest.mark.parametrize("spoil", [block, spoil_the_notes])
def test_without_a_cache_there_is_a_temporary_file(spoil, path: Path, cache: Path):
    expected = b"".join(path.read_bytes().split(b"\r"))
    spoil(cache)
    for _ in range(2):
        assert bytes(open_data(str(path), "bytes").tokens[1:].tolist()) == expected


def load(path: Path) -> None:
    store = open_data(str(path), "characters")
    assert store.tokenizer.decode(store.tokens.tolist()) == TEXT


@pytest.mark.profile("ci")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a file whose close() was to fail
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_call_that_fails_costs_the_cache_or_is_one_line(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TINYGRAD_CHAT_CACHE", str(tmp_path / "counted"))
    total = count_system_calls(lambda: load(path))
    assert total > 50
    for number in range(1, total + 1, 2):
        monkeypatch.setenv("TINYGRAD_CHAT_CACHE", str(tmp_path / str(number)))
        with at_system_call(number, fail), contextlib.suppress(DataError):  # where the text could not be read
            load(path)
        load(path)
        assert len(stores(tmp_path / str(number))) == 1


@needs_fork
@pytest.mark.parametrize("first", [pytest.param(1, marks=CI), *(pytest.param(first, marks=DEEP) for first in (4, 7))])
def test_a_process_killed_at_a_call_leaves_nothing_that_misleads(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int
):
    monkeypatch.setenv("TINYGRAD_CHAT_CACHE", str(tmp_path / "counted"))
    total = count_system_calls(lambda: load(path))
    for number in range(first, total + 1, 9):
        monkeypatch.setenv("TINYGRAD_CHAT_CACHE", str(tmp_path / str(number)))
        assert kill_at_system_call(number, partial(load, path))
        load(path)
        path.with_name("other.txt").write_text(f"other text {number}")
        open_data(str(path.with_name("other.txt")), "bytes")  # clears what was abandoned
        assert [each for each in stores(tmp_path / str(number)) if each.name.startswith(".")] == []


@pytest.mark.profile("ci")
def test_processes_that_prepare_the_same_text_at_once_do_no_harm(path: Path, cache: Path):
    path.write_bytes(path.read_bytes() * 2000)
    program = (
        "import sys; from tinygrad_chat.text.data import open_data;"
        "from hashlib import sha256; store = open_data(sys.argv[1], 'characters');"
        "print(sha256(store.tokens.tobytes()).hexdigest())"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert len({process.communicate()[0] for process in started}) == 1
    assert [process.returncode for process in started] == [0, 0, 0]
    assert len(stores(cache)) == 1


def test_the_cache_keeps_what_was_used_last_and_what_is_in_use(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    paths = [tmp_path / f"{number}.txt" for number in range(5)]
    for number, path in enumerate(paths):
        path.write_text(f"text number {number}\n" * 100)
    held = open_data(str(paths[0]), "bytes")
    folders = {0: stores(cache)[0]}
    for number in (1, 2, 3):
        open_data(str(paths[number]), "bytes")
        (folders[number],) = set(stores(cache)) - set(folders.values())
    for number, folder in folders.items():
        os.utime(folder / "metadata.json", (number, number))
    open_data(str(paths[1]), "bytes")  # the last to be used
    size = sum(file.stat().st_size for file in folders[1].iterdir())
    monkeypatch.setattr(token_cache, "MAX_BYTES", int(2.5 * size))
    open_data(str(paths[4]), "bytes")
    assert {number for number, folder in folders.items() if folder.exists()} == {0, 1}
    assert len(stores(cache)) == 3
    assert bytes(held.tokens[1:].tolist()) == paths[0].read_bytes()
    monkeypatch.setattr(token_cache, "MAX_STORES", 1)
    monkeypatch.setattr(token_cache, "MAX_CORPORA", 2)
    del held
    open_data(str(paths[2]), "bytes")
    assert len(stores(cache)) == 1
    assert len(list((cache / "corpora").iterdir())) == 2
