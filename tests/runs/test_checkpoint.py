"""Checkpoints: what is saved comes back, and what is damaged is refused in one line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tinygrad_chat.errors import CheckpointError
from tinygrad_chat.runs.checkpoint import (
    Checkpoint,
    checkpoint_path,
    find_checkpoints,
    load_checkpoint,
    remove_old_checkpoints,
    save_checkpoint,
)
from tinygrad_chat.runs.folder import open_checkpoint
from tinygrad_chat.training.loop import train
from tinygrad_chat.training.run import Run, load_model

STATE = {
    "config": {"steps": 3},
    "tokenizer": {"kind": "bytes"},
    "data": {"sha256": "0"},
    "seconds": 1.5,
    "best_step": None,
    "best_loss": None,
    "skipped_batches": 0,
    "recent_losses": {},
}


def checkpoint(step: int = 5) -> Checkpoint:
    weights = {"a": np.arange(6, dtype=np.float32).reshape(2, 3)}
    return Checkpoint(step, weights, {"mean": np.ones(6, np.float32), "steps": np.array([5])}, STATE)


def test_what_is_saved_comes_back(tmp_path: Path):
    loaded = load_checkpoint(save_checkpoint(tmp_path, checkpoint()))
    assert loaded.step == 5
    assert STATE.items() <= loaded.state.items()
    for mine, theirs in [(checkpoint().weights, loaded.weights), (checkpoint().optimizer, loaded.optimizer)]:
        assert mine.keys() == theirs.keys()
        for name, array in mine.items():
            np.testing.assert_array_equal(array, theirs[name])
            assert array.dtype == theirs[name].dtype


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "noise"])
def test_a_damaged_file_is_refused_in_one_line_that_names_the_checkpoint(tmp_path: Path, name: str, damage: str):
    path = save_checkpoint(tmp_path, checkpoint())
    file = path / name
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "noise": b"\xff" * 40}[damage])
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def rewrite(path: Path, state: object) -> None:
    """Give a checkpoint another state, with digests that fit it: not damaged, but made that way."""
    before = hashlib.sha256((path / "state.json").read_bytes()).hexdigest()
    (path / "state.json").write_text(json.dumps(state))
    after = hashlib.sha256((path / "state.json").read_bytes()).hexdigest()
    digests = path / "SHA256SUMS"
    digests.write_text(digests.read_text().replace(before, after))


WHOLE = {"format": 2, "step": 3, **STATE}


@pytest.mark.parametrize(
    "state",
    [
        {"format": 99},
        [],
        {"format": 2, "step": 3},
        {**WHOLE, "step": -3},
        {**WHOLE, "step": "3"},
        {**WHOLE, "seconds": None},
        {**WHOLE, "best_loss": "low"},
        {**WHOLE, "config": []},
        {**WHOLE, "data": 3},
    ],
)
def test_a_state_of_another_kind_is_refused(tmp_path: Path, state: object):
    path = save_checkpoint(tmp_path, checkpoint())
    rewrite(path, state)
    with pytest.raises(CheckpointError):
        load_checkpoint(path)


def test_checkpoints_are_found_in_the_order_of_their_steps(tmp_path: Path):
    for step in (1_000_000, 5, 250):
        save_checkpoint(tmp_path, checkpoint(step))
    (tmp_path / ".step-000007.partial").mkdir()
    (tmp_path / "step-notes").mkdir()
    assert find_checkpoints(tmp_path) == [checkpoint_path(tmp_path, step) for step in (5, 250, 1_000_000)]


def test_the_newest_and_the_best_stay(tmp_path: Path):
    for step in (1, 2, 3, 4, 5):
        save_checkpoint(tmp_path, checkpoint(step))
    remove_old_checkpoints(tmp_path, step=5, keep=2, best_step=2)
    assert [path.name for path in find_checkpoints(tmp_path)] == ["step-000002", "step-000004", "step-000005"]


def test_a_model_loads_from_a_run_or_one_of_its_checkpoints(start: Callable[..., Run]):
    run = start()
    for _ in train(run):
        pass
    for path in (run.folder.path, run.folder.newest_checkpoint()):
        model, tokenizer = load_model(open_checkpoint(path, say=print))
        np.testing.assert_array_equal(model.parameters().data, run.model.parameters().data)
        assert tokenizer.state() == run.tokenizer.state()


def test_weights_of_another_shape_are_refused(start: Callable[..., Run]):
    run = start()
    for _ in train(run):
        pass
    path = run.folder.newest_checkpoint()
    state = json.loads((path / "state.json").read_text())
    state["config"]["width"] = 16
    rewrite(path, state)
    with pytest.raises(CheckpointError, match="weights do not fit the model"):
        load_model(load_checkpoint(path))


def test_a_folder_without_checkpoints_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(CheckpointError, match="no checkpoint there; train one with: tgc train --out"):
        open_checkpoint(tmp_path, say=print)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="train a model first with: tgc train"):
        open_checkpoint(None, say=print)
