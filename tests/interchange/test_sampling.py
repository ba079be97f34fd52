"""How tokens are drawn by default, as a model's own files say it: in and out."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tests.interchange.models import small_model
from tinygrad_chat.errors import FormatError
from tinygrad_chat.interchange.gguf_export import export_gguf
from tinygrad_chat.interchange.huggingface_export import export_huggingface
from tinygrad_chat.interchange.importing import import_model
from tinygrad_chat.interchange.opening import open_model
from tinygrad_chat.runs.folder import RunFolder
from tinygrad_chat.runs.sampling import Sampling
from tinygrad_chat.runs.state import SavedModel, SavedState
from tinygrad_chat.schema import checked
from tinygrad_chat.training.facts import resolve_with_facts
from tinygrad_chat.training.run import start_run

STATED = {"temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.05, "repetition_penalty": 1.1}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    export_huggingface(small_model("qwen3", chatml=True), tmp_path / "model")
    return tmp_path / "model"


def state(folder: Path, **settings: Any) -> None:
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def found(folder: Path) -> tuple[dict[str, Any], list[str]]:
    said: list[str] = []
    return open_model(folder, say=said.append).sampling.settings(), said


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({}, {}),
        ({"do_sample": True, **STATED}, STATED),
        ({"temperature": 1, "top_k": 0, "min_p": 0.0, "top_p": None}, {"temperature": 1.0}),
        ({"do_sample": False, "temperature": 0.6}, {"temperature": 0.0}),
    ],
)
def test_a_folder_says_how_to_draw(folder: Path, stated: dict[str, Any], expected: dict[str, Any]):
    state(folder, **stated)
    assert found(folder) == (expected, [])


@pytest.mark.parametrize(
    ("stated", "problem"),
    [
        ({"temperature": -1}, "--temperature: expected at least 0, received -1.0"),
        ({"temperature": "hot"}, "temperature: expected a number or null, received 'hot'"),
        ({"top_p": 7}, "--top-p: expected at most 1, received 7.0"),
        ({"top_k": 2.5}, "top_k: expected a whole number or null, received 2.5"),
        ({"repetition_penalty": 0.5}, "--repetition-penalty: expected at least 1, received 0.5"),
        ({"min_p": [1]}, "min_p: expected a number or null, received a list"),
    ],
)
def test_what_cannot_be_is_one_line_and_plays_no_part(folder: Path, stated: dict[str, Any], problem: str):
    state(folder, **{**STATED, **stated})
    expected = f"{folder / 'generation_config.json'}: {problem}; its sampling settings are ignored"
    assert found(folder) == ({}, [expected])


@pytest.mark.profile("ci")
@pytest.mark.parametrize("stated", [STATED, {"temperature": 0.0}])
def test_it_goes_along_through_files_runs_and_training(folder: Path, stated: dict[str, Any], tmp_path: Path, text):
    state(folder, do_sample=bool(stated["temperature"]), **stated)
    import_model(open_model(folder, say=print), RunFolder(tmp_path / "run"))
    settings = {"start_from": str(tmp_path / "run"), "data": str(text), "context": 8, "batch_size": 1, "steps": 1}
    run = start_run(resolve_with_facts({**settings, "backend": "numpy"})[0], tmp_path / "tuned")
    assert run.state({}).model.sampling.settings() == stated
    run.state({}).save(run.folder.checkpoints)
    saved = run.folder.open_newest(SavedModel.load, say=print)
    assert saved.sampling.settings() == stated
    export_huggingface(saved, tmp_path / "out")
    export_gguf(saved, tmp_path / "out.gguf")
    assert found(tmp_path / "out") == (stated, [])
    assert found(tmp_path / "out.gguf") == (stated, [])
    assert json.loads((tmp_path / "out/generation_config.json").read_text())["do_sample"] is bool(stated["temperature"])


def test_a_gguf_file_is_checked_likewise(tmp_path: Path):
    saved = dataclasses.replace(small_model("llama"), sampling=Sampling(temperature=-2.0))
    export_gguf(saved, tmp_path / "a.gguf")
    settings, said = found(tmp_path / "a.gguf")
    assert (settings, len(said)) == ({}, 1)
    assert "--temperature: expected at least 0, received -2.0" in said[0]


def test_a_checkpoint_whose_state_says_something_else_is_refused(folder: Path, tmp_path: Path):
    state(folder, **STATED)
    path = import_model(open_model(folder, say=print), RunFolder(tmp_path / "run"))
    whole = json.loads((path / "state.json").read_text())
    assert whole["sampling"] == STATED
    with pytest.raises(FormatError, match=r"x: sampling\.top_k: expected a whole number or null"):
        checked({"parent": {}, **whole, "sampling": {"top_k": "9"}}, SavedState, source="x")
