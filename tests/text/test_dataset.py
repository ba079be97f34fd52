"""Datasets and batches: no byte is lost, no token is a target twice, and targets are what follows."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_chat.errors import DataError, StorageError
from tinygrad_chat.text.batches import batches_in_order, random_batch
from tinygrad_chat.text.data import open_data
from tinygrad_chat.text.dataset import Dataset
from tinygrad_chat.text.tokenizers import ByteTokenizer, CharacterTokenizer

kinds = pytest.mark.parametrize("kind", ["characters", "bytes"])


def load(data: object, kind: str, context: int = 8) -> Dataset:
    return Dataset.from_store(open_data(str(data), kind), context=context)


@kinds
def test_bytes_of_all_tokens_sum_to_the_files_size(tmp_path: Path, kind: str):
    path = tmp_path / "a.txt"
    path.write_text("naïve 日本 text\n" * 50, encoding="utf-8")
    dataset = load(path, kind)
    bytes_per_token = open_data(str(path), kind).tokenizer.bytes_per_token()
    total = sum(int(bytes_per_token[tokens].sum()) for tokens in (dataset.training, dataset.validation))
    assert total == path.stat().st_size == dataset.bytes
    assert dataset.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_real_text_is_counted_and_hashed_truly(shakespeare: Path):
    dataset = load(shakespeare, "characters", context=64)
    assert dataset.bytes == shakespeare.stat().st_size
    assert dataset.sha256 == hashlib.sha256(shakespeare.read_bytes()).hexdigest()
    assert len(dataset.training) + len(dataset.validation) == 1_115_394 + 1


def test_a_file_of_any_bytes_trains_by_bytes(tmp_path: Path):
    path = tmp_path / "a.bin"
    content = bytes(range(256)) * 2
    path.write_bytes(content)
    dataset = load(path, "bytes")
    assert bytes(np.concatenate([dataset.training, dataset.validation])[1:].tolist()) == content


def test_each_document_begins_with_bos_and_the_last_tenth_is_held_out(tmp_path: Path):
    for number in range(20):
        (tmp_path / f"{number:02}.txt").write_text("abcdefghi")
    dataset = load(tmp_path, "characters")
    tokens = np.concatenate([dataset.training, dataset.validation])
    assert dataset.documents == 20
    np.testing.assert_array_equal(np.flatnonzero(tokens == 9), np.arange(0, 200, 10))
    assert (len(dataset.training), len(dataset.validation)) == (180, 20)


def test_tokens_are_memory_mapped(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("abc" * 100)
    assert isinstance(load(path, "characters").training, np.memmap)


@pytest.mark.parametrize("length", [1, 88])
def test_a_text_too_short_for_its_context_is_refused_with_what_would_do(tmp_path: Path, length: int):
    path = tmp_path / "short.txt"
    path.write_text("a" * length)
    with pytest.raises(DataError, match=f"expected at least 90 tokens for --context 8 .* received {length + 1};"):
        load(path, "characters")
    path.write_text("a" * 89)
    assert len(load(path, "characters").validation) == 9


def test_no_room_for_the_tokens_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "a.txt"
    path.write_text("abc" * 100)
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(StorageError, match=r"No space left on device.*TMPDIR"):
        load(path, "characters")


def test_an_empty_text_is_refused_as_such(tmp_path: Path):
    path = tmp_path / "empty.txt"
    path.touch()
    with pytest.raises(DataError, match=r"empty.txt: is empty; expected at least 90 characters of text"):
        load(path, "characters")


def test_any_tokens_make_a_dataset():
    tokens = np.arange(200, dtype=np.int32) % 11
    dataset = Dataset.from_tokens(tokens, context=8, document_starts=np.array([0, 50]))
    np.testing.assert_array_equal(np.concatenate([dataset.training, dataset.validation]), tokens)
    assert len(dataset.validation) == 20
    assert dataset.summary() == {
        "source": "tokens",
        "sha256": hashlib.sha256(tokens.tobytes()).hexdigest(),
        "bytes": 800,
        "documents": 2,
        "split": "end",
        "training_tokens": 180,
        "validation_tokens": 20,
    }


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (np.zeros((2, 300), int), r"expected a 1-D array of integers, received int64 of shape \(2, 300\)"),
        (np.zeros(300), "expected a 1-D array of integers, received float64"),
        (np.arange(-1, 300), "expected no token below 0, received -1"),
        (np.arange(89), "expected at least 90 tokens for --context 8 .* received 89"),
    ],
)
def test_what_are_no_tokens_is_refused(tokens: np.ndarray, message: str):
    with pytest.raises(DataError, match=f"mine: {message}"):
        Dataset.from_tokens(tokens, context=8, source="mine")


def test_texts_make_the_dataset_that_a_folder_of_them_does(tmp_path: Path):
    texts = [f"text number {number}, naïve" for number in range(12)]
    for number, text in enumerate(texts):
        (tmp_path / f"{number:02}.txt").write_text(text, encoding="utf-8")
    for kind, tokenizer in (("characters", CharacterTokenizer("".join(texts))), ("bytes", ByteTokenizer())):
        read, made = load(tmp_path, kind), Dataset.from_texts(iter(texts), tokenizer, context=8, source=str(tmp_path))
        assert made.summary() == read.summary()
        np.testing.assert_array_equal(made.training, read.training)
        np.testing.assert_array_equal(made.validation, read.validation)


@given(st.integers(2, 60), st.integers(1, 7), st.integers(1, 9))
def test_in_order_each_token_but_the_first_is_a_target_once(count, batch_size, context):
    tokens = np.arange(count)
    batches = list(batches_in_order(tokens, batch_size=batch_size, context=context))
    targets = np.concatenate([targets.ravel() for _, targets in batches])
    np.testing.assert_array_equal(targets, tokens[1:])
    for inputs, targets in batches:
        np.testing.assert_array_equal(targets, inputs + 1)
        assert inputs.shape[0] <= batch_size
        assert inputs.shape[1] <= context


def test_random_windows_begin_anywhere_and_their_targets_follow():
    tokens, random = np.arange(12, dtype=np.uint8), np.random.default_rng(0)
    starts = set()
    for _ in range(200):
        inputs, targets = random_batch(tokens, batch_size=3, context=4, random=random)
        assert inputs.shape == targets.shape == (3, 4)
        np.testing.assert_array_equal(targets, inputs + 1)
        starts |= set(inputs[:, 0].tolist())
    assert starts == set(range(8))
