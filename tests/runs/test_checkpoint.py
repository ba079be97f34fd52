"""Checkpoints: what is saved comes back, and what is damaged is refused in one line."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from tests.layouts import EXAMPLES, Layout
from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.errors import CheckpointError
from tinygrad_chat.inference.generation import sample_texts
from tinygrad_chat.inference.load import load_model
from tinygrad_chat.inference.options import SamplingOptions
from tinygrad_chat.runs.checkpoint import checkpoint_path, find_checkpoints, remove_old_checkpoints
from tinygrad_chat.runs.lookup import open_checkpoint
from tinygrad_chat.runs.state import Progress, SavedModel, TrainingState
from tinygrad_chat.text.tokenizers import ByteTokenizer
from tinygrad_chat.training.loop import train
from tinygrad_chat.training.run import Run, resume_run


def state(step: int = 5) -> TrainingState:
    return TrainingState(
        config=TrainingConfig.of(steps=3),
        tokenizer=ByteTokenizer(),
        weights={"a": np.arange(6, dtype=np.float32).reshape(2, 3)},
        optimizer={"mean": np.ones(6, np.float32), "steps": np.array([5])},
        data={"sha256": "0"},
        progress=Progress(step=step, seconds=1.5),
    )


def test_what_is_saved_comes_back(tmp_path: Path):
    saved, loaded = state(), TrainingState.load(state().save(tmp_path))
    assert loaded.step == 5
    assert (loaded.config, loaded.data, loaded.progress) == (saved.config, saved.data, saved.progress)
    assert loaded.tokenizer.state() == saved.tokenizer.state()
    for mine, theirs in [(saved.weights, loaded.weights), (saved.optimizer, loaded.optimizer)]:
        assert mine.keys() == theirs.keys()
        for name, array in mine.items():
            np.testing.assert_array_equal(array, theirs[name])
            assert array.dtype == theirs[name].dtype


@pytest.mark.parametrize("layout", EXAMPLES.values(), ids=EXAMPLES.keys())
def test_what_lies_in_another_memory_order_comes_back_too(tmp_path: Path, layout: Layout):
    """As from an optimiser of one's own that remembers a transposed array; one number has no order to lie in."""
    arrays = {
        "matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
        "number": np.array(7.0),
        "nothing": np.ones((0, 2)),
    }
    there = {name: layout.lay_out(array) for name, array in arrays.items()}
    loaded = TrainingState.load(dataclasses.replace(state(), weights=there, optimizer=there).save(tmp_path))
    for found in (loaded.weights, loaded.optimizer, SavedModel.load(checkpoint_path(tmp_path, 5)).weights):
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)
            assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)


def test_a_model_is_read_without_the_optimiser_and_its_weights_stay_in_the_file(tmp_path: Path):
    path = state().save(tmp_path)
    (path / "optimizer.safetensors").unlink()
    model = SavedModel.load(path)
    np.testing.assert_array_equal(model.weights["a"], state().weights["a"])
    assert not model.weights["a"].flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        model.weights["a"][0] = 1
    with pytest.raises(CheckpointError, match=r"no checkpoint there .*optimizer\.safetensors"):
        TrainingState.load(path)


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "noise", "another digit"])
def test_a_damaged_file_is_refused_in_one_line_that_names_the_checkpoint(tmp_path: Path, name: str, damage: str):
    path = state().save(tmp_path)
    file = path / name
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        other = content[:-2] + bytes([content[-2] ^ 1]) + content[-1:]  # still an array, or the end of a line
        damaged = {"empty": b"", "cut": content[: len(content) // 2], "noise": b"\xff" * 40, "another digit": other}
        file.write_bytes(damaged[damage])
    with pytest.raises(CheckpointError) as caught:
        TrainingState.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def rewrite(path: Path, state: object) -> None:
    """Give a checkpoint another state, with digests that fit it: not damaged, but made that way."""
    before = hashlib.sha256((path / "state.json").read_bytes()).hexdigest()
    (path / "state.json").write_text(json.dumps(state))
    after = hashlib.sha256((path / "state.json").read_bytes()).hexdigest()
    digests = path / "SHA256SUMS"
    digests.write_text(digests.read_text().replace(before, after))


PROGRESS: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(Progress(step=3))))
WHOLE = {"format": 3, "config": {}, "tokenizer": {"kind": "bytes"}, "data": {}, "progress": PROGRESS}


def test_the_least_state_is_read(tmp_path: Path):
    path = state().save(tmp_path)
    rewrite(path, WHOLE)
    assert TrainingState.load(path).config == TrainingConfig.of(eval_tokens=0, split="end")


@pytest.mark.parametrize(
    "changed",
    [
        {"format": 99},
        [],
        {"format": 3},
        {**WHOLE, "progress": {**PROGRESS, "step": -3}},
        {**WHOLE, "progress": {**PROGRESS, "step": "3"}},
        {**WHOLE, "progress": {**PROGRESS, "seconds": None}},
        {**WHOLE, "progress": {**PROGRESS, "best_loss": "low"}},
        {**WHOLE, "progress": {}},
        {**WHOLE, "config": []},
        {**WHOLE, "config": {"model": {"width": "wide"}}},
        {**WHOLE, "config": {"modle": {"width": 8}}},
        {**WHOLE, "data": 3},
    ],
)
def test_a_state_of_another_kind_is_refused(tmp_path: Path, changed: object):
    path = state().save(tmp_path)
    rewrite(path, changed)
    for load in (TrainingState.load, SavedModel.load):
        with pytest.raises(CheckpointError):
            load(path)


def as_format_2(path: Path) -> None:
    """Make of a checkpoint what version 0.1 wrote: settings flat, all of them, and the progress beside them."""
    state = TrainingState.load(path)
    settings = {name: value for name, value in state.config.settings().items() if value is not None}
    settings["accumulate"], settings["keep"] = settings.pop("grad_accumulation"), settings.pop("keep_checkpoints")
    if settings["model"] == "bigram":  # it was told nothing of the blocks that it has not
        settings |= {"layers": 4, "positions": "learned"}
    progress = dataclasses.asdict(state.progress)
    progress["passed_batches"] = progress.pop("skipped_batches")
    old = {"format": 2, "config": settings, "tokenizer": state.tokenizer.state(), "data": dict(state.data), **progress}
    rewrite(path, old)
    (path.parents[1] / "config.toml").write_text(tomli_w.dumps(settings))


@pytest.mark.parametrize("settings", [{}, {"model": "bigram"}, {"optimizer": "muon"}, {"optimizer": "sgd"}], ids=str)
def test_a_run_of_version_0_1_opens_resumes_and_samples(start: Callable[..., Run], settings: dict[str, Any]):
    whole, old = start("whole", **settings), start("old", **settings)
    for _ in train(whole):
        pass
    for _ in train(old, should_stop=lambda: old.progress.step >= 3):
        pass
    as_format_2(old.folder.newest_checkpoint())
    assert old.folder.read_config() == whole.config
    model = load_model(open_checkpoint(old.folder.path, SavedModel.load, say=print))
    text = "".join(next(sample_texts(model, old.tokenizer, SamplingOptions(max_new_tokens=20))))
    assert text == "".join(next(sample_texts(old.model, old.tokenizer, SamplingOptions(max_new_tokens=20))))
    resumed = resume_run(old.folder.path, {})
    for _ in train(resumed):
        pass
    np.testing.assert_array_equal(resumed.model.parameters().data, whole.model.parameters().data)
    assert resumed.folder.log.read_bytes() == whole.folder.log.read_bytes()


def test_checkpoints_are_found_in_the_order_of_their_steps(tmp_path: Path):
    for step in (10_000_000, 5, 2_000_000, 250):
        state(step).save(tmp_path)
    (tmp_path / ".step-000007.tgc-partial").mkdir()
    (tmp_path / "step-notes").mkdir()
    assert find_checkpoints(tmp_path) == [checkpoint_path(tmp_path, step) for step in (5, 250, 2_000_000, 10_000_000)]


def test_the_newest_and_the_best_stay(tmp_path: Path):
    for step in (1, 2, 3, 4, 5):
        state(step).save(tmp_path)
    remove_old_checkpoints(tmp_path, step=5, keep=2, best_step=2)
    assert [path.name for path in find_checkpoints(tmp_path)] == ["step-000002", "step-000004", "step-000005"]


def test_a_model_loads_from_a_run_or_one_of_its_checkpoints(start: Callable[..., Run]):
    run = start()
    for _ in train(run):
        pass
    for path in (run.folder.path, run.folder.newest_checkpoint()):
        saved = open_checkpoint(path, SavedModel.load, say=print)
        np.testing.assert_array_equal(load_model(saved).parameters().data, run.model.parameters().data)
        assert saved.tokenizer.state() == run.tokenizer.state()


def test_weights_of_another_shape_are_refused(start: Callable[..., Run]):
    run = start()
    for _ in train(run):
        pass
    path = run.folder.newest_checkpoint()
    state = json.loads((path / "state.json").read_text())
    state["config"]["model"]["width"] = 16
    rewrite(path, state)
    with pytest.raises(CheckpointError, match="weights do not match the model"):
        load_model(SavedModel.load(path))


def test_a_folder_without_checkpoints_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(CheckpointError, match="no checkpoint there; train one with: tgc train --out"):
        open_checkpoint(tmp_path, SavedModel.load, say=print)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="train a model first with: tgc train"):
        open_checkpoint(None, SavedModel.load, say=print)


def test_a_number_that_no_run_has_steps_for_makes_no_checkpoint(tmp_path: Path):
    state(7).save(tmp_path)
    for digits in (16, 240):
        (tmp_path / f"step-{'9' * digits}").mkdir()
        (tmp_path / f"step-{'9' * digits}-temporary").mkdir()
    assert find_checkpoints(tmp_path) == [checkpoint_path(tmp_path, 7)]
