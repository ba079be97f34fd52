"""A checkpoint from anywhere: an error in one line, not code that runs and not the machine's memory."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save

import tinygrad_chat
from tests.runs.test_checkpoint import rewrite
from tinygrad_chat.errors import CheckpointError, TinygradChatError
from tinygrad_chat.inference.load import load_model
from tinygrad_chat.runs import checkpoint as module
from tinygrad_chat.runs.checkpoint import find_checkpoints
from tinygrad_chat.runs.state import SavedModel, TrainingState
from tinygrad_chat.training.build import build_for_training
from tinygrad_chat.training.loop import train
from tinygrad_chat.training.run import Run, resume_run


@pytest.fixture
def path(start: Callable[..., Run]) -> Path:
    """The only checkpoint of a finished run."""
    run = start(steps=2)
    for _ in train(run):
        pass
    first, last = find_checkpoints(run.folder.checkpoints)
    shutil.rmtree(first)
    return last


def resign(path: Path) -> None:
    """Give the checkpoint the digests of what is in it now."""
    names = (module.WEIGHTS, module.OPTIMIZER, module.STATE_FILE)
    lines = []
    for name in names:
        with (path / name).open("rb") as file:
            lines.append(module._digest_line(name, file))
    (path / module.DIGESTS).write_text("".join(lines), newline="\n")


def refused(path: Path, file: str = module.WEIGHTS) -> str:
    """Open the checkpoint as `tgc train --resume` does and, unless only the optimiser's `file` is bad, as `tgc sample`
    does; return what they say."""
    said = training_refused(path)
    resume_refused(path)
    if file == module.OPTIMIZER:
        load_model(SavedModel.load(path))  # which does not read it
        return said
    with pytest.raises(TinygradChatError) as sampling:
        load_model(SavedModel.load(path))
    assert "\n" not in str(sampling.value)
    return str(sampling.value)


def training_refused(path: Path) -> str:
    """Read all of the checkpoint into a model; return what is said."""

    def load() -> None:
        state = TrainingState.load(path)
        train_step = build_for_training(state.config, state.tokenizer.size)
        train_step.model.parameters().load(state.weights)
        train_step.optimizer.load(state.optimizer)

    with pytest.raises(TinygradChatError) as caught:
        load()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def resume_refused(path: Path) -> str:
    with pytest.raises(TinygradChatError) as caught:
        resume_run(path.parent.parent, {})
    return str(caught.value)


def header_of(length: int, content: bytes = b"") -> bytes:
    return struct.pack("<Q", length) + content


def file_of(header: bytes, numbers: bytes = b"") -> bytes:
    return header_of(len(header), header) + numbers


HEADERS = {
    "a header longer than the file": header_of(1 << 62),
    "a header of 99 MB": header_of(99_000_000, b" " * 100),
    "no JSON": header_of(4, b"{]}]"),
    "offsets beyond the file": header_of(65, b'{"a":{"dtype":"F32","shape":[9,9],"data_offsets":[0,999999999]}}  '),
    "a shape that overflows": header_of(
        85, b'{"a":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,16]}}        '
    ),
    "another type": save({"a": np.ones(3, np.float32)}).replace(b"F32", b"F99"),
    "a type of 8 bits": save({"a": np.ones(3, np.uint8)}).replace(b'"U8"', b'"F8_E4M3"').replace(b" ", b"", 1),
    "a list of arrays": file_of(b"[{}, {}]"),
    "a text where an array is due": file_of(b'{"a":"b"}'),
    "a list where an array is due": file_of(b'{"a":[]}'),
    "a shape that is none": file_of(b'{"a":{"dtype":"U8","shape":{},"data_offsets":[0,1]}}', b"x"),
    "a shape below 0": file_of(b'{"a":{"dtype":"U8","shape":[-1],"data_offsets":[1,0]}}', b"x"),
    "a shape of NaN": file_of(b'{"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,1]}}', b"x"),
    "twenty dimensions": file_of(b'{"a":{"dtype":"U8","shape":[1' + b",1" * 19 + b'],"data_offsets":[0,1]}}', b"x"),
    "one offset": file_of(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[1]}}', b"x"),
    "a gap": file_of(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}', b"xy"),
    "two arrays in one place": file_of(
        b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
        b"xy",
    ),
    "numbers of no array": save({"a": np.ones(3, np.float32)}) + b"1234",
    "fewer numbers than it says": save({"a": np.ones(3, np.float32)})[:-4],
    "metadata that are no texts": file_of(b'{"__metadata__": {"a": 1}}'),
    "nested without end": file_of(b"[" * 100_000),
    "a type that NumPy lacks": save({"a": np.ones(4, np.float16)}).replace(b'"F16"', b'"BF16"').replace(b" ", b"", 1),
}


@pytest.mark.parametrize("file", [module.WEIGHTS, module.OPTIMIZER])
@pytest.mark.parametrize("content", HEADERS.values(), ids=HEADERS)
def test_a_header_that_lies_is_refused(path: Path, file: str, content: bytes):
    (path / file).write_bytes(content)
    resign(path)
    assert "damaged" in refused(path, file)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("file", [module.WEIGHTS, module.OPTIMIZER])
def test_arrays_that_are_no_numbers_are_refused_by_name(path: Path, file: str, value: float):
    arrays = load_file(path / file)
    name = sorted(name for name, array in arrays.items() if array.dtype == np.float32)[0]
    arrays[name].ravel()[0] = value
    (path / file).write_bytes(save(arrays))
    resign(path)
    assert f"{file}: '{name}': expected finite numbers" in refused(path, file)


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: arrays.pop("final_norm.gain"),
        lambda arrays: arrays.update({"../../climbs.out": np.ones(3, np.float32)}),
        lambda arrays: arrays.update({"final_norm.gain": np.ones((8, 8), np.float32)}),
        lambda arrays: arrays.update({"final_norm.gain": np.array(1, np.float32)}),
    ],
    ids=["missing", "a name that climbs out", "another shape", "no dimension"],
)
def test_weights_that_do_not_fit_the_model_are_refused(path: Path, change: Callable[[dict[str, Any]], Any]):
    arrays = load_file(path / module.WEIGHTS)
    change(arrays)
    (path / module.WEIGHTS).write_bytes(save(arrays))
    resign(path)
    assert "weights do not match the model" in refused(path)


STATES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no object": lambda state: [],
    "nested without end": lambda state: None,  # written below
    "a width beyond any memory": lambda state: state["config"]["model"].update(width=10**12, heads=1),
    "layers beyond any memory": lambda state: state["config"]["model"].update(layers=10**12),
    "a context beyond any memory": lambda state: state["config"]["model"].update(context=10**12),
    "a context beyond any memory, rotary": lambda state: state["config"]["model"].update(
        context=10**12, positions="rotary"
    ),
    "a number beyond floats": lambda state: state["config"]["model"].update(width=10**400),
    "a model of no name": lambda state: state["config"]["recipe"].update(model="os.system"),
    "an option of no name": lambda state: state["config"].update(__class__="x"),
    "a tokenizer of no kind": lambda state: state.update(tokenizer={"kind": "../../x"}),
    "an alphabet of no text": lambda state: state.update(tokenizer={"kind": "characters", "alphabet": 5}),
    "an alphabet of half a character": lambda state: state.update(
        tokenizer={"kind": "characters", "alphabet": "a\ud800"}
    ),
    "no best step": lambda state: state["progress"].__delitem__("best_step"),
    "a list of settings": lambda state: state["config"].update(model=[]),
    "data of no kind": lambda state: state.update(data=[]),
    "a digest of data that is no text": lambda state: state["data"].update(sha256=[]),
    "a path with NUL": lambda state: state["config"]["data"].update(source="a\0b"),
    "a parent of no kind": lambda state: state.update(parent=[1]),
    "a step beyond any": lambda state: state["progress"].update(step=2**63),
    "a format of no kind": lambda state: state.update(format=[3]),
    "something nested 500 deep": lambda state: state.update(more=json.loads("[" * 500 + "]" * 500)),
    "a step that is a path": lambda state: state["progress"].update(step="../../x"),
    "seconds that are NaN": lambda state: state["progress"].update(seconds=math.nan),
    "seconds without end": lambda state: state["progress"].update(seconds=math.inf),
    "a best loss that is NaN": lambda state: state["progress"].update(best_loss=math.nan),
    "a best step before the first": lambda state: state["progress"].update(best_step=-5),
    "a step before the first": lambda state: state["progress"].update(step=-1),
    "recent losses fewer than none": lambda state: state["progress"].update(
        recent_losses={"count": -1, "mean": 1.0, "variance": 1.0}
    ),
    "recent losses of a variance below 0": lambda state: state["progress"].update(
        recent_losses={"count": 100, "mean": 1.0, "variance": -1.0}
    ),
    "recent losses without number": lambda state: state["progress"].update(
        recent_losses={"count": 100, "mean": math.nan, "variance": 1.0}
    ),
    "recent losses of no kind": lambda state: state["progress"].update(recent_losses={"path": "x"}),
    "recent losses that are NaN": lambda state: state["progress"].update(
        recent_losses={"count": "1", "mean": 0.0, "variance": 0.0}
    ),
}


@pytest.mark.parametrize("change", STATES.values(), ids=STATES)
def test_a_state_that_cannot_be_is_refused(path: Path, change: Callable[[dict[str, Any]], Any]):
    state = json.loads((path / "state.json").read_text())
    changed = change(state)
    rewrite(path, state if changed is None else changed)
    if change is STATES["nested without end"]:
        (path / "state.json").write_text("[" * 100_000)
        resign(path)
    assert refused(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("no best step", "state.json: progress: has no best_step"),
        ("a best loss that is NaN", "state.json: progress.best_loss: expected a finite number, received nan"),
        ("recent losses fewer than none", "state.json: progress.recent_losses.count: expected at least 0, received -1"),
        ("data of no kind", "state.json: data: expected an object, received an empty list"),
        (
            "a model of no name",
            "state.json: --model: expected one of bigram, mini-gpt, nanochat, own, received 'os.system'",
        ),
    ],
)
def test_a_state_that_cannot_be_is_refused_by_file_and_key(path: Path, change: str, message: str):
    state = json.loads((path / "state.json").read_text())
    STATES[change](state)
    rewrite(path, state)
    assert refused(path) == f"{path}: the checkpoint is damaged ({message})"


@pytest.mark.parametrize("name", ["steps", "mean"])
def test_what_an_optimiser_remembers_has_dimensions(path: Path, name: str):
    arrays = load_file(path / module.OPTIMIZER)
    (path / module.OPTIMIZER).write_bytes(save({**arrays, name: np.array(1, arrays[name].dtype)}))
    resign(path)
    assert f"optimiser state does not fit: {name} is ()" in resume_refused(path)


def test_an_optimiser_that_took_fewer_than_no_steps_is_refused(path: Path):
    arrays = load_file(path / module.OPTIMIZER)
    arrays["steps"][0] = -1
    (path / module.OPTIMIZER).write_bytes(save(arrays))
    resign(path)
    assert "expected steps of at least 0, received -1" in resume_refused(path)


def test_a_file_larger_than_memory_is_not_read(path: Path):
    with (path / module.WEIGHTS).open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.truncate(1 << 43)  # 8 TiB of nothing, which take no room on the disk
        assert "8,388,608 MiB is more than there is room for: weights" in refused(path)
        file.truncate(size)
    with (path / module.STATE_FILE).open("r+b") as file:
        file.truncate(1 << 40)
    assert "1,048,576 MiB is more than there is room for: state.json" in refused(path)


def test_weights_and_optimiser_must_fit_into_memory_together(path: Path, monkeypatch: pytest.MonkeyPatch):
    sizes = [(path / name).stat().st_size for name in (module.WEIGHTS, module.OPTIMIZER)]
    monkeypatch.setattr(module, "available_memory", lambda: sum(sizes))
    assert TrainingState.load(path).step == 2
    monkeypatch.setattr(module, "available_memory", lambda: sum(sizes) - 1)
    with pytest.raises(CheckpointError, match=r"is more than there is room for: optimizer\.safetensors"):
        TrainingState.load(path)
    assert SavedModel.load(path).step == 2


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
def test_what_is_no_file_is_not_read(path: Path):
    (path / module.WEIGHTS).unlink()
    (path / module.WEIGHTS).symlink_to("/dev/zero")
    assert "expected a file" in refused(path)
    (path / module.WEIGHTS).unlink()
    os.mkfifo(path / module.WEIGHTS)
    assert "expected a file" in refused(path)


def test_nothing_in_the_package_reads_pickles():
    package = Path(tinygrad_chat.__file__).parent
    for file in package.rglob("*.py"):
        source = file.read_text(encoding="utf-8")
        assert not re.search(r"\b(import|from) (pickle|marshal|shelve)\b", source), file
        assert "np.load(" not in source, file


def test_a_checkpoint_runs_no_code(path: Path, monkeypatch: pytest.MonkeyPatch):
    """With the doors to running code shut, a whole checkpoint still opens."""

    def shut(*_: object, **__: object) -> None:
        raise AssertionError("code was run")

    for name in ("eval", "exec", "compile"):
        monkeypatch.setattr(f"builtins.{name}", shut)
    monkeypatch.setattr("pickle.loads", shut)
    monkeypatch.setattr("pickle.load", shut)
    assert TrainingState.load(path).step == 2


def test_a_missing_checkpoint_says_which_file(path: Path):
    (path / "state.json").unlink()
    with pytest.raises(CheckpointError, match=r"no checkpoint there \(No such file or directory: state.json\)"):
        TrainingState.load(path)
