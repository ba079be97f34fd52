"""Models evaluated on a text: which part of it, how much, and in units that no tokenizer can flatter."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.models.table_model import table_model
from tinygrad_chat.errors import ConfigError, DataError, VocabularyError
from tinygrad_chat.evaluation.text import TextEvaluation, evaluate_on_text, first_bytes
from tinygrad_chat.text.tokenizers import ByteTokenizer, CharacterTokenizer, Tokenizer
from tinygrad_chat.training.loop import train
from tinygrad_chat.training.run import Run

Start = Callable[..., Run]


@pytest.fixture
def trained(start: Start) -> Run:
    run = start(eval_tokens=0)
    for _ in train(run):
        pass
    return run


def evaluated(run: Run, **options: Any) -> list[TextEvaluation]:
    return list(evaluate_on_text(run.model, run.tokenizer, run.config, **options))


def test_without_a_text_it_is_what_the_last_evaluation_of_the_run_says(trained: Run):
    [found] = evaluated(trained)
    last = trained.folder.records()[-1]
    assert found.evaluation.loss == pytest.approx(last["val_loss"], rel=1e-6)
    assert found.evaluation.bits_per_byte == pytest.approx(last["val_bpb"], rel=1e-6)
    assert found.source == trained.dataset.source


def test_another_text_counts_as_a_whole(trained: Run, tmp_path: Path):
    letters = trained.tokenizer.decode(range(5))
    (tmp_path / "other.txt").write_text(20 * letters)
    [found] = evaluated(trained, data=str(tmp_path / "other.txt"))
    assert (found.evaluation.tokens, found.evaluation.bytes) == (100, 20 * len(letters.encode()))


@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), CharacterTokenizer("aé")], ids=["bytes", "characters"])
def test_a_model_that_knows_nothing_takes_as_many_bits_as_its_tokens_have(
    trained: Run, tmp_path: Path, tokenizer: Tokenizer
):
    (tmp_path / "other.txt").write_text("aéé" * 40, encoding="utf-8")
    model: Any = table_model(np.zeros((tokenizer.size, tokenizer.size)))
    [found] = evaluate_on_text(model, tokenizer, trained.config, data=str(tmp_path / "other.txt"))
    tokens = len(tokenizer.encode("aéé" * 40))
    assert found.evaluation.bytes == 200
    assert found.evaluation.bits_per_byte == pytest.approx(tokens * math.log2(tokenizer.size) / 200)


def test_at_most_so_many_bytes_are_read_of_each_source(trained: Run, tmp_path: Path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(20 * trained.tokenizer.decode([0, 1, 2]))
    sources = tuple(f"{tmp_path / name}:0.5" for name in ("a.txt", "b.txt"))
    found = evaluated(trained, data=sources, most_bytes=30)
    assert [each.evaluation.bytes for each in found] == [30, 30]


def test_bytes_are_added_up_across_chunks(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tinygrad_chat.evaluation.text.CHUNK", 2)
    tokens, sizes = np.array([0, 1, 1, 2, 1]), np.array([0, 1, 3])
    counts = [len(first_bytes(tokens, sizes, most)) for most in range(8)]
    assert counts == [1, 2, 3, 3, 3, 4, 5, 5]


def test_progress_ends_with_all_of_it(trained: Run):
    told: list[Any] = []
    evaluated(trained, progress=lambda *done: told.append(done))
    assert told[-1][0] == "evaluating"
    assert told[-1][1] == told[-1][2] == len(trained.dataset.parts[0].validation) - 1


def test_texts_that_cannot_be_are_refused(trained: Run, tmp_path: Path):
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "strange.txt").write_text("☃")
    with pytest.raises(DataError, match=r"empty.txt: expected at least 2 tokens"):
        evaluated(trained, data=str(tmp_path / "empty.txt"))
    with pytest.raises(VocabularyError, match="☃"):
        evaluated(trained, data=str(tmp_path / "strange.txt"))
    with pytest.raises(ConfigError, match="--max-bytes"):
        evaluated(trained, most_bytes=-1)
