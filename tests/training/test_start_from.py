"""A run that starts from another's model: at its loss, with a record of it, and from then on alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tinygrad_chat
from tests.cli.conftest import Tgc, tgc  # noqa: F401 - a fixture
from tests.test_api import MLP
from tests.tiny import tiny_settings
from tests.training.test_resume import finish, kill_at, remains
from tinygrad_chat.errors import CheckpointError, ConfigError, VocabularyError
from tinygrad_chat.experiments.ablation import Ablation
from tinygrad_chat.experiments.running import run_ablation
from tinygrad_chat.planning.measurement import measure
from tinygrad_chat.runs.checkpoint import checkpoint_path, digest_of, find_checkpoints
from tinygrad_chat.runs.folder import RunFolder
from tinygrad_chat.runs.state import TrainingState
from tinygrad_chat.training.facts import resolve_with_facts
from tinygrad_chat.training.run import Run, resume_run, start_run

Start = Callable[..., Run]
FURTHER: dict[str, Any] = {"steps": 6, "eval_every": 3, "log_every": 1}


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Another text in the same characters."""
    path = tmp_path / "other.txt"
    path.write_text("the lazy dog jumps over the fox and over the dog\n" * 20)
    return path


def start_from(parent: Path, folder: Path, **settings: Any) -> Run:
    config, _ = resolve_with_facts({"start_from": str(parent), **FURTHER, **settings})
    return start_run(config, folder)


def losses(run: Run) -> list[float]:
    return [record["val_loss"] for record in run.folder.records() if "val_loss" in record]


@pytest.mark.parametrize(
    "recipe",
    [
        {},
        {"model": "bigram", "optimizer": "sgd"},
        {"dropout": 0.2, "positions": "rotary", "tokenizer": "bytes", "optimizer": "muon"},
        {"model": "nanochat", "depth": 1, "width": 16, "heads": 2},
        {"mode": "scalar", "eval_tokens": 9, "width": 4, "context": 4},
    ],
    ids=str,
)
def test_it_begins_at_its_parents_loss(start: Start, tmp_path: Path, recipe: dict[str, Any]):
    parent = start("parent", **recipe)
    finish(parent)
    run = start_from(
        parent.folder.path, tmp_path / "run", **{name: recipe[name] for name in recipe.keys() & {"eval_tokens"}}
    )
    finish(run)
    assert losses(run)[0] == losses(parent)[-1]
    assert losses(run)[-1] != losses(run)[0]
    assert run.train_step.optimizer.state().get("steps", [6]) == [6]  # none from before


@pytest.mark.profile("ci")
def test_it_learns_another_text_and_its_record_holds_the_parent(start: Start, tmp_path: Path, other: Path):
    parent = start("parent", steps=60, lr=0.02)
    finish(parent)
    run = start_from(parent.folder.path, tmp_path / "run", data=str(other), steps=60, lr=0.01)
    finish(run)
    assert losses(run)[-1] < 0.8 * losses(run)[0]
    assert losses(run)[-1] < losses(start_and_finish(start, data=str(other), steps=60, lr=0.01))[-1]
    checkpoint = checkpoint_path(parent.folder.checkpoints, 60)
    record = {
        "checkpoint": str(checkpoint),
        "step": 60,
        "weights_sha256": digest_of(checkpoint, "weights.safetensors"),
    }
    assert {json.dumps(TrainingState.load(path).parent) for path in find_checkpoints(run.folder.checkpoints)} == {
        json.dumps(record)
    }
    assert run.folder.environments()[0].get("parent") == record
    assert run.folder.read_config().recipe.start_from == str(checkpoint)
    assert f"weights from {checkpoint}".replace("_", r"\_") in (run.folder.path / "report.md").read_text()
    assert str(checkpoint) in (run.folder.path / "report.html").read_text()


def start_and_finish(start: Start, **settings: Any) -> Run:
    run = start("alone", **settings)
    finish(run)
    return run


@pytest.mark.profile("ci")
def test_it_goes_on_to_the_bit_though_its_parent_is_gone(start: Start, tmp_path: Path, other: Path):
    parent = start("parent")
    finish(parent)
    whole, killed, unbegun = (
        start_from(parent.folder.path, tmp_path / name, data=str(other)) for name in ("whole", "killed", "unbegun")
    )
    finish(whole)
    kill_at(killed, 4)
    shutil.rmtree(parent.folder.path)
    resumed = resume_run(killed.folder.path, {})
    assert resumed.progress.step == 3
    finish(resumed)
    assert remains(resumed) == remains(whole)
    assert resumed.folder.environments()[-1].get("parent") == whole.parent
    finish(unbegun)  # a model that has been read needs it no more either
    assert remains(unbegun) == remains(whole)


def test_a_checkpoint_of_its_own_comes_before_anything_that_could_be_resumed(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    parent = start("parent")
    finish(parent)
    run = start_from(parent.folder.path, tmp_path / "run")
    shutil.rmtree(parent.folder.path)
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "begin", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            finish(run)
    resumed = resume_run(run.folder.path, {})
    finish(resumed)
    assert [line["step"] for line in resumed.folder.records()] == [0, 1, 2, 3, 4, 5, 6]


def test_its_configuration_trains_the_same_again(start: Start, tmp_path: Path, other: Path):
    parent = start("parent")
    finish(parent)
    run = start_from(parent.folder.path, tmp_path / "run", data=str(other))
    finish(run)
    again = start_run(run.folder.read_config(), tmp_path / "again")
    finish(again)
    assert remains(again) == remains(run)


def test_another_parent_is_another_run(start: Start, tmp_path: Path):
    logs = []
    for name, seed in (("a", 1), ("b", 2)):
        parent = start(name, seed=seed)
        finish(parent)
        run = start_from(parent.folder.path, tmp_path / f"from {name}", seed=5)
        finish(run)
        logs.append(run.folder.log.read_bytes())
    assert logs[0] != logs[1]


def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(start: Start, tmp_path: Path):
    parent = start("parent")
    finish(parent)
    (checkpoint_path(parent.folder.checkpoints, 6) / "weights.safetensors").write_bytes(b"")
    said: list[str] = []
    config, _ = resolve_with_facts({"start_from": str(parent.folder.path)}, say=said.append)
    assert config.recipe.start_from == str(checkpoint_path(parent.folder.checkpoints, 3))
    assert "step-000006" in said[0]
    with pytest.raises(CheckpointError, match="step-000006"):
        resolve_with_facts({"start_from": str(checkpoint_path(parent.folder.checkpoints, 6))})


def test_characters_that_the_model_lacks_are_named_the_most_frequent_first(start: Start, tmp_path: Path):
    parent = start("parent")
    finish(parent)
    unknown = tmp_path / "unknown.txt"
    unknown.write_text("the dog " * 50 + "ééé1122345678\u202e")
    with pytest.raises(VocabularyError) as caught:
        start_from(parent.folder.path, tmp_path / "run", data=str(unknown))
    assert str(caught.value) == (
        f"--data {unknown}: the model of {checkpoint_path(parent.folder.checkpoints, 6)} does not know "
        "'é' (U+00E9), '1' (U+0031), '2' (U+0032), '3' (U+0033), '4' (U+0034), ..., 10 characters, 14 "
        "times in all; replace them in the text, or train a model with --tokenizer bytes, which encodes any text"
    )
    assert not (tmp_path / "run").exists()


def test_a_model_of_bytes_knows_every_text(start: Start, tmp_path: Path):
    parent = start("parent", tokenizer="bytes")
    finish(parent)
    unknown = tmp_path / "unknown.txt"
    unknown.write_bytes("日本語\n".encode() * 50 + b"\xff")
    finish(start_from(parent.folder.path, tmp_path / "run", data=str(unknown)))


def test_from_python_with_texts_datasets_and_a_model_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    words = ["anna", "otto", "hannah"] * 40
    first = tinygrad_chat.train(words, **tiny_settings(), out="first")
    second = tinygrad_chat.train(["otto", "nana"] * 60, start_from=Path(first.path), steps=3)
    assert second.tokenizer.state() == first.tokenizer.state()
    assert second.config.recipe.start_from == str(Path("first/checkpoints/step-000006"))
    tokens = tinygrad_chat.Dataset.from_texts(words, first.tokenizer, context=8)
    third = tinygrad_chat.train(tokens, start_from="first", steps=3)
    assert third.config.model == first.config.model
    with pytest.raises(VocabularyError, match="character 'z'"):
        tinygrad_chat.train(["zzz"] * 60, start_from="first", steps=3)
    own = tinygrad_chat.train(words, model=MLP, steps=3, out="own")
    further = tinygrad_chat.train(words, model=MLP, start_from=own.path, steps=3)
    assert isinstance(further.model, MLP)
    begun, parent = (checkpoint_path(Path(run.path) / "checkpoints", step) for run, step in ((further, 0), (own, 3)))
    assert digest_of(begun, "weights.safetensors") == digest_of(parent, "weights.safetensors")
    with pytest.raises(ConfigError, match=r"--model: the model of .* has own, received mini-gpt"):
        tinygrad_chat.train(words, model="mini-gpt", start_from=own.path, steps=3)


@pytest.mark.profile("ci")
def test_at_the_terminal_runs_and_reports_show_the_parent(tgc: Tgc, text: Path, other: Path):  # noqa: F811
    small = ["--layers", "1", "--heads", "2", "--width", "8", "--context", "8", "--steps", "2"]
    tgc("train", *small, "--data", str(text), "--out", "runs/a")
    assert "from" not in tgc("runs")[1].splitlines()[0].split()
    code, out, err = tgc("train", "--from", "a", "--data", str(other), "--steps", "2", "--out", "runs/b")
    assert (code, err) == (0, "")
    checkpoint = Path("runs/a/checkpoints/step-000002")
    assert f"weights from {checkpoint}, fine-tuned at a learning rate of 0.0004" in out
    _, listed, _ = tgc("runs")
    assert [line.split()[4] for line in listed.splitlines()] == ["from", "-", "a/step-000002"]
    assert [json.loads(line)["parent"] for line in tgc("runs", "--json")[1].splitlines()] == [None, str(checkpoint)]
    code, _, err = tgc("train", "--resume", "--out", "runs/b", "--from", "nowhere")
    assert (code, err.count("\n")) == (2, 1)
    assert "--start-from: the run to resume has" in err


@pytest.mark.parametrize("command", ["train", "plan", "profile", "ablate --vary tied"])
def test_a_parent_that_is_not_there_is_one_line(tgc: Tgc, command: str):  # noqa: F811
    code, out, err = tgc(*command.split(), "--from", "nowhere")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "nowhere: no such file or folder" in err


@pytest.mark.profile("ci")
def test_an_ablation_and_a_plan_may_start_from_a_run_too(start: Start, tmp_path: Path):
    parent = start("parent")
    finish(parent)
    further = {"start_from": str(parent.folder.path), **FURTHER}
    ablation = Ablation(further, {"lr": [0.01, 0.1]}, seeds=1)
    events = list(run_ablation(ablation, tmp_path / "ablation"))
    assert {losses(run)[0] for run, _ in events} == {losses(parent)[-1]}
    config, _ = resolve_with_facts(further)
    assert measure(config, seconds=0.0).parameters == parent.model.parameters().size


def test_memory_that_its_parents_file_takes_is_not_taken_twice(start: Start, tmp_path: Path, monkeypatch: Any):
    parent = start("parent")
    finish(parent)
    monkeypatch.setattr("tinygrad_chat.models.gpt.draw_weights", lambda *_: pytest.fail("weights were drawn"))
    run = start_from(parent.folder.path, tmp_path / "run")
    finish(run)
    resume_run(run.folder.path, {"steps": 7})
