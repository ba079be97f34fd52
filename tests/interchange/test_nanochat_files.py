"""Weights to karpathy/nanochat's and back, through files that anybody may have written."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bench.peers import nanochat
from tests.layouts import EXAMPLES
from tests.upstream import NANOCHAT_DIR, needs_upstream
from tinygrad_chat.errors import (
    CheckpointError,
    ConfigError,
    FormatError,
    TinygradChatError,
    UsageError,
    VocabularyError,
)
from tinygrad_chat.inference.load import load_model
from tinygrad_chat.interchange import nanochat_files
from tinygrad_chat.interchange.nanochat_files import export_nanochat, import_nanochat
from tinygrad_chat.reports.content import read_report
from tinygrad_chat.runs.arrays import map_file
from tinygrad_chat.runs.folder import RunFolder
from tinygrad_chat.runs.state import TrainingState
from tinygrad_chat.text.tokenizers import CharacterTokenizer
from tinygrad_chat.training.facts import resolve_with_facts
from tinygrad_chat.training.loop import train
from tinygrad_chat.training.run import Run, resume_run, start_run

Start = Callable[..., Run]
TINY: dict[str, Any] = {"model": "nanochat", "depth": 2, "width": 32, "heads": 2, "batch_size": 2, "steps": 3}


@pytest.fixture
def trained(start: Start) -> TrainingState:
    run = start(**TINY)
    for _ in train(run):
        pass
    return run.folder.open_newest(TrainingState.load, say=print)


def imported_from(trained: TrainingState, folder: Path, **options: Any) -> RunFolder:
    """The run that is made of a trained model's exported file."""
    export_nanochat(trained.model, folder / "model.safetensors")
    run = RunFolder(folder / "imported")
    import_nanochat(folder / "model.safetensors", run, **options)
    return run


def test_an_exported_model_comes_back_bit_by_bit(trained: TrainingState, tmp_path: Path):
    tokenizer = trained.tokenizer
    imported = imported_from(trained, tmp_path, tokenizer=tokenizer).open_newest(TrainingState.load, say=print)
    assert imported.weights.keys() == trained.weights.keys()
    for name, array in trained.weights.items():
        np.testing.assert_array_equal(imported.weights[name], array, err_msg=name)
    tokens = np.array([[1, 2, 3]])
    models = [load_model(state.model) for state in (trained, imported)]
    np.testing.assert_array_equal(*(model.next_token_logits(tokens) for model in models))


@pytest.mark.parametrize("layout", ["Fortran", "all at once"])
def test_weights_in_another_memory_order_are_exported_as_they_are(trained: TrainingState, tmp_path: Path, layout: str):
    there = {name: EXAMPLES[layout].lay_out(array) for name, array in trained.weights.items()}
    export_nanochat(trained.model, tmp_path / "plain")
    export_nanochat(dataclasses.replace(trained.model, weights=there), tmp_path / "there")
    found, expected = load_file(tmp_path / "there"), load_file(tmp_path / "plain")
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_an_imported_model_keeps_its_shape_and_is_trained_as_one_likes(
    trained: TrainingState, tmp_path: Path, text: Path
):
    folder = imported_from(trained, tmp_path, tokenizer=trained.tokenizer)
    settings = {"start_from": str(folder.path), "data": str(text), "steps": 2, "batch_size": 5, "lr": 1e-3}
    with pytest.raises(ConfigError, match=r"--width: the model of .*imported.* has 32, received 64"):
        resolve_with_facts({**settings, "width": 64})
    run = start_run(resolve_with_facts(settings)[0], tmp_path / "further")
    assert (run.progress.step, run.config.data.batch_size, run.config.optimizer.lr, run.config.schedule.min_lr) == (
        0,
        5,
        1e-3,
        5e-5,
    )
    for _ in train(run):
        pass
    assert run.progress.step == 2


def test_text_for_a_model_of_numbers_is_told_what_to_do(trained: TrainingState, tmp_path: Path, text: Path):
    folder = imported_from(trained, tmp_path)
    config, _ = resolve_with_facts({"start_from": str(folder.path), "data": str(text)})
    with pytest.raises(
        VocabularyError, match=r"--data .*text\.txt: .*expected numbers from 0 to 30.*import it with --tokenizer-of"
    ):
        start_run(config, tmp_path / "further")


def test_an_imported_run_has_no_training_to_resume(trained: TrainingState, tmp_path: Path):
    folder = imported_from(trained, tmp_path)
    with pytest.raises(UsageError, match=r"imported: was imported, .* tgc train --from .*imported --data TEXT"):
        resume_run(folder.path, {})
    commands = [command for _, command in read_report(folder).commands]
    assert commands == [
        f"tgc {what}" for what in (f"sample --checkpoint {folder.path}", f"train --from {folder.path} --data TEXT")
    ]


def test_a_file_that_promises_more_than_it_holds_is_not_read(
    trained: TrainingState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "model.safetensors"
    export_nanochat(trained.model, path)
    path.write_bytes(path.read_bytes()[:-4])
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("it was read"))
    with pytest.raises(CheckpointError, match="expected a safetensors file of floats"):
        import_nanochat(path, RunFolder(tmp_path / "imported"))


@needs_upstream
@pytest.mark.upstream
def test_upstream_loads_the_file_that_is_exported(trained: TrainingState, tmp_path: Path):
    import torch
    from safetensors import safe_open
    from safetensors.torch import load_file as load_tensors

    path, tokens = tmp_path / "model.safetensors", np.array([[1, 2, 3, 4]])
    export_nanochat(trained.model, path)
    with safe_open(path, framework="pt") as file:
        config = json.loads(file.metadata()["model_config"])
    theirs = nanochat.build(NANOCHAT_DIR, config)
    theirs.load_state_dict(load_tensors(path))
    with torch.no_grad():
        logits = theirs(torch.tensor(tokens)).numpy()[:, -1]
    np.testing.assert_allclose(load_model(trained.model).next_token_logits(tokens), logits, rtol=0, atol=1e-5)


def test_without_a_tokenizer_tokens_are_numbers(trained: TrainingState, tmp_path: Path):
    path = tmp_path / "model.safetensors"
    export_nanochat(trained.model, path)
    tokenizer = TrainingState.load(import_nanochat(path, RunFolder(tmp_path / "imported"))).tokenizer
    assert tokenizer.bos == trained.tokenizer.bos
    assert tokenizer.decode([3, tokenizer.bos, 14]) == " 3 14"
    assert tokenizer.encode("3 14").tolist() == [3, 14]


def test_bfloat16_and_a_config_of_its_own_are_read(trained: TrainingState, tmp_path: Path):
    """As upstream's checkpoints from a GPU have them, but for the pickle."""
    path, meta = tmp_path / "model.safetensors", tmp_path / "meta.json"
    export_nanochat(trained.model, path)
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        meta.write_text(json.dumps({"step": 3, "model_config": json.loads(file.metadata()["model_config"])}))
    write_bfloat16(path, load_file(path))
    with pytest.raises(CheckpointError, match="holds no model_config; name upstream's JSON file with --meta"):
        import_nanochat(path, RunFolder(tmp_path / "a"))
    imported = TrainingState.load(import_nanochat(path, RunFolder(tmp_path / "b"), meta=meta))
    for name, array in trained.weights.items():
        np.testing.assert_allclose(imported.weights[name], array, rtol=2**-7, err_msg=name)


def write_bfloat16(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """By hand, after the format's description: a length, a header in JSON, the arrays one behind the other."""
    header, data = {}, b""
    for name, array in arrays.items():
        upper = (np.ascontiguousarray(array).view(np.uint32) >> 16).astype(np.uint16).tobytes()
        header[name] = {"dtype": "BF16", "shape": array.shape, "data_offsets": [len(data), len(data) + len(upper)]}
        data += upper
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def changed(path: Path, change: Callable[[dict[str, np.ndarray], dict[str, Any]], object]) -> None:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        config = json.loads(file.metadata()["model_config"])
    arrays = load_file(path)
    change(arrays, config)
    save_file(arrays, path, metadata={"model_config": json.dumps(config)})


HOSTILE: dict[str, tuple[Callable[[Any, Any], object], str]] = {
    "a missing array": (lambda a, c: a.pop("resid_lambdas"), "missing residual_scales, unknown none"),
    "one too many": (lambda a, c: a.update(x=a["resid_lambdas"]), "missing none, unknown x"),
    "another shape": (
        lambda a, c: a.update({"transformer.h.0.attn.c_q.weight": np.zeros(7, np.float32)}),
        r"is \(7,\)",
    ),
    "whole numbers": (
        lambda a, c: a.update(smear_lambda=np.zeros(1, np.int64)),
        "expected F64 or F32 or F16 or BF16, received I64",
    ),
    "a width that heads do not divide": (lambda a, c: c.update(n_head=3), "--heads: expected a divisor"),
    "no width": (lambda a, c: c.pop("n_embd"), r"model\.safetensors: model_config: has no n_embd"),
    "a width beyond the machine": (lambda a, c: c.update(n_embd=10**9), "choose a smaller --width"),
    "no layers": (lambda a, c: c.update(n_layer=-1), "model_config: n_layer: expected at least 0, received -1"),
    "an array of no dimension": (
        lambda a, c: a.update({"transformer.h.0.attn.c_q.weight": np.array(0, np.float32)}),
        r"blocks\.0\.attention\.query\.weight is \(\)",
    ),
    "a name that is a format": (lambda a, c: a.update({"x.0.{:>1900000000}": a["resid_lambdas"]}), "unknown "),
    "a width of NaN": (lambda a, c: c.update(n_embd=float("nan")), "n_embd: expected a whole number, received nan"),
    "a width of 2^63": (lambda a, c: c.update(n_embd=2**63), "n_embd: expected at most 9007199254740992"),
    "heads in words": (lambda a, c: c.update(n_head=["two"]), "n_head: expected a whole number, received a list"),
    "half a character": (lambda a, c: c.update(window_pattern="\ud800"), "window_pattern: expected text in UTF-8"),
    "another vocabulary": (lambda a, c: c.update(vocab_size=4000), "token_embedding.weight is"),
    "no vocabulary": (lambda a, c: c.update(vocab_size=0), "vocab_size: expected at least 2, received 0"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_file_that_does_not_fit_is_one_line_and_nothing_is_made(trained: TrainingState, tmp_path: Path, case: str):
    path, folder = tmp_path / "model.safetensors", tmp_path / "imported"
    export_nanochat(trained.model, path)
    change, message = HOSTILE[case]
    changed(path, change)
    with pytest.raises(TinygradChatError, match=message):
        import_nanochat(path, RunFolder(folder))
    assert not folder.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a zip of another kind", b"\xff" * 64])
def test_what_is_no_safetensors_file_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"expected a safetensors file of floats .*docs/nanochat\.md says how"):
        import_nanochat(path, RunFolder(tmp_path / "imported"))


@pytest.mark.parametrize("content", ["[1]", "{}", '{"model_config": []}', "[" * 950 + "]" * 950, "", '{"a": NaN}'])
def test_a_meta_file_that_does_not_fit_is_refused(trained: TrainingState, tmp_path: Path, content: str):
    path, meta = tmp_path / "model.safetensors", tmp_path / "meta.json"
    export_nanochat(trained.model, path)
    meta.write_text(content)
    with pytest.raises(FormatError, match=r"meta\.json: "):
        import_nanochat(path, RunFolder(tmp_path / "imported"), meta=meta)


def test_a_tokenizer_of_another_size_is_refused(trained: TrainingState, tmp_path: Path):
    path = tmp_path / "model.safetensors"
    export_nanochat(trained.model, path)
    with pytest.raises(CheckpointError, match=r"expected a tokenizer of \d+ tokens, received one of 4"):
        import_nanochat(path, RunFolder(tmp_path / "imported"), tokenizer=CharacterTokenizer("abc"))


def test_a_model_that_is_not_nanochats_is_not_exported(start: Start, tmp_path: Path):
    run = start(steps=2)
    for _ in train(run):
        pass
    with pytest.raises(UsageError, match=r"nanochat's GPT has .*; train one with --model nanochat"):
        export_nanochat(run.state().model, tmp_path / "model.safetensors")
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize("widened", [False, True])
def test_a_file_and_the_run_that_is_made_of_it_must_fit_into_memory_together(
    trained: TrainingState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, widened: bool
):
    path, meta = tmp_path / "model.safetensors", tmp_path / "meta.json"
    export_nanochat(trained.model, path)
    arrays, metadata = map_file(path, most=1 << 30)
    meta.write_text(json.dumps({"model_config": json.loads(metadata["model_config"])}))
    numbers = sum(array.size for array in arrays.values())
    needed = 3 * 4 * numbers  # the file, the weights of the run, the file that they are written to
    if widened:
        write_bfloat16(path, arrays)
        needed = (2 + 4 + 2 * 4) * numbers
    folder = RunFolder(tmp_path / "imported")
    monkeypatch.setattr(nanochat_files, "available_memory", lambda: needed - 1)
    with pytest.raises(CheckpointError, match="the run made from them take at least"):
        import_nanochat(path, folder, meta=meta)
    assert not folder.path.exists()
    monkeypatch.setattr(nanochat_files, "available_memory", lambda: needed)
    import_nanochat(path, folder, meta=meta)
