"""Runs that train adapters: what they refuse, save and resume, and that all else opens them as any other run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygrad_chat
from tests.cli.conftest import Tgc, tgc  # noqa: F401 - a fixture
from tests.training.test_resume import finish, kill_at, remains
from tests.training.test_start_from import losses, start_from
from tinygrad_chat.errors import ConfigError
from tinygrad_chat.models.lora import merge
from tinygrad_chat.runs.checkpoint import checkpoint_path
from tinygrad_chat.runs.state import SavedModel, TrainingState
from tinygrad_chat.training.facts import resolve_with_facts
from tinygrad_chat.training.run import Run, resume_run

Start = Callable[..., Run]


@pytest.fixture
def parent(start: Start) -> Path:
    run = start("parent")
    finish(run)
    return run.folder.path


def last(run: Run, kind: Any) -> Any:
    return kind.load(checkpoint_path(run.folder.checkpoints, run.progress.step))


@pytest.mark.profile("ci")
@pytest.mark.parametrize("changes", [{}, {"optimizer": "muon"}, {"mode": "scalar", "eval_tokens": 9}], ids=str)
def test_adapters_learn_and_nothing_else_does(parent: Path, tmp_path: Path, changes: dict[str, Any]):
    run = start_from(parent, tmp_path / "run", lora=2, lr=0.01, **changes)
    finish(run)
    assert losses(run)[-1] != losses(run)[0]
    before, saved = SavedModel.load(checkpoint_path(parent / "checkpoints", 6)), last(run, TrainingState)
    for name, array in before.weights.items():
        np.testing.assert_array_equal(saved.weights[name], array)
    assert {name.rpartition(".")[2] for name in saved.weights.keys() - before.weights.keys()} == {"lora_a", "lora_b"}


@pytest.mark.profile("ci")
def test_it_is_resumed_exactly(parent: Path, tmp_path: Path):
    whole = start_from(parent, tmp_path / "whole", lora=2)
    finish(whole)
    killed = start_from(parent, tmp_path / "killed", lora=2)
    kill_at(killed, 4)
    resumed = resume_run(killed.folder.path, {})
    finish(resumed)
    assert remains(resumed) == remains(whole)


def test_the_run_alone_is_sampled_evaluated_and_trained_on(parent: Path, tmp_path: Path, tgc: Tgc):  # noqa: F811
    run = start_from(parent, tmp_path / "run", lora=2, lr=0.05)
    finish(run)
    parent.rename(tmp_path / "elsewhere")
    saved = last(run, SavedModel)
    assert saved.config.model.lora is None
    state = last(run, TrainingState)
    merged = merge(state.config.model, saved.tokenizer.size, state.weights)
    tokens = np.arange(6)[None]
    loaded = tinygrad_chat.load(run.folder.path)
    np.testing.assert_allclose(loaded.logits(tokens), run.model.token_logits(tokens), atol=1e-5)
    np.testing.assert_array_equal(
        saved.weights["blocks.0.attention.key.weight"], merged["blocks.0.attention.key.weight"]
    )
    for command in (["sample", "--max-new-tokens", "3", "--checkpoint"], ["eval"]):
        assert tgc(*command, str(run.folder.path))[0] == 0
    further = start_from(run.folder.path, tmp_path / "further")
    assert further.config.model.lora is None
    finish(further)
    assert losses(further)[0] == pytest.approx(losses(run)[-1], abs=1e-5)


def test_by_default_they_learn_at_their_parents_whole_rate(parent: Path, tmp_path: Path):
    rates = [start_from(parent, tmp_path / f"run{lora}", lora=lora).config.optimizer.lr for lora in (None, 2)]
    assert rates[1] == pytest.approx(10 * rates[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lora": 2}, r"--lora: has no effect without --from"),
        ({"lora_alpha": 2.0}, r"--lora-alpha: has no effect without --lora"),
        ({"lora": 0}, r"--lora: expected at least 1, received 0"),
    ],
)
def test_adapters_of_nothing_are_refused(settings: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        resolve_with_facts(settings)


def test_a_model_without_blocks_has_none(start: Start, tmp_path: Path):
    run = start("bigram", model="bigram")
    finish(run)
    with pytest.raises(ConfigError, match=r"--lora: has no effect with --model bigram"):
        start_from(run.folder.path, tmp_path / "run", lora=2)
