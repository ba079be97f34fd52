"""Whatever a path leads to: a model that is opened at once, or one line that says what is amiss."""

from __future__ import annotations

import json
import os
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import tinygrad_chat
from tests.interchange.models import small_model
from tinygrad_chat.errors import CheckpointError, NoRoomError, TinygradChatError
from tinygrad_chat.inference.load import load_model
from tinygrad_chat.interchange.gguf_export import export_gguf
from tinygrad_chat.interchange.huggingface_export import export_huggingface
from tinygrad_chat.interchange.huggingface_files import INDEX, WEIGHTS
from tinygrad_chat.interchange.opening import open_model
from tinygrad_chat.runs.lookup import open_checkpoint
from tinygrad_chat.runs.state import SavedModel
from tinygrad_chat.text.tokenizers.turns import NANOCHAT

Change = Callable[[Path], object]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    export_huggingface(small_model("llama", chatml=True), tmp_path / "model")
    return tmp_path / "model"


def sharded(folder: Path, **places: str) -> None:
    """Put the arrays into two files, and say so in an index, but for what `places` says."""
    arrays = load_file(folder / WEIGHTS)
    names = sorted(arrays)
    shards = {"a-1.safetensors": names[: len(names) // 2], "a-2.safetensors": names[len(names) // 2 :]}
    for shard, held in shards.items():
        save_file({name: arrays[name] for name in held}, folder / shard)
    (folder / WEIGHTS).unlink()
    weight_map = {name: shard for shard, held in shards.items() for name in held}
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": {**weight_map, **places}}))


def test_several_files_are_one_model(folder: Path):
    expected = np.asarray(open_model(folder, say=print).weights["blocks.1.attention.query.weight"])
    sharded(folder)
    found = open_model(folder, say=print)
    np.testing.assert_array_equal(np.asarray(found.weights["blocks.1.attention.query.weight"]), expected)


def changed(name: str, **values: Any) -> Change:
    def change(folder: Path) -> None:
        content = json.loads((folder / f"{name}.json").read_text())
        content = {key: value for key, value in {**content, **values}.items() if value is not None}
        (folder / f"{name}.json").write_text(json.dumps(content))

    return change


def replaced_array(name: str, array: np.ndarray | None) -> Change:
    def change(folder: Path) -> None:
        arrays = {key: np.array(value) for key, value in load_file(folder / WEIGHTS).items()}
        arrays.pop(name, None)
        save_file(arrays | ({} if array is None else {name: array}), folder / WEIGHTS)

    return change


def larger_tokenizer(folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    content["added_tokens"].append({"id": 600, "content": "<|x|>", "special": True})
    (folder / "tokenizer.json").write_text(json.dumps(content))


def without_a_shard(folder: Path) -> None:
    sharded(folder)
    (folder / "a-2.safetensors").unlink()


def as_pickle(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


NORM = "model.norm.weight"
UNFIT: dict[str, tuple[Change, str]] = {
    "a missing shard": (without_a_shard, "a-2.safetensors is missing, one of 2 files"),
    "a shard elsewhere": (lambda folder: sharded(folder, x="../model/a-1.safetensors"), "received '../model/a-1.saf"),
    "a shard by its path": (lambda folder: sharded(folder, x="/etc/passwd"), "received '/etc/passwd'"),
    "a shard that is a link's": (lambda folder: sharded(folder, x="..\\a.safetensors"), "beside it, received"),
    "an array in the wrong shard": (
        lambda folder: sharded(folder, **{NORM: "a-1.safetensors"}),
        "a-1.safetensors: does not hold what model.safetensors.index.json says: missing model.norm.weight",
    ),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "expected a model.safetensors or a"),
    "a pickle": (as_pickle, "pytorch_model.bin: is a pickle, which can run any code"),
    "a shape that differs": (replaced_array(NORM, np.ones(3, np.float32)), "model.norm.weight is (3,), expected (32,)"),
    "an array that is missing": (replaced_array(NORM, None), "missing model.norm.weight"),
    "an array too many": (replaced_array("x", np.ones(1, np.float32)), "unknown model.x"),
    "whole numbers": (replaced_array(NORM, np.ones(32, np.int32)), "expected F64 or F32 or F16 or BF16, received I32"),
    "an unknown architecture": (
        changed("config", architectures=["MambaForCausalLM"]),
        "architectures: expected one of LlamaForCausalLM",
    ),
    "code of its own": (changed("config", architectures=["Mine"], auto_map={"AutoModel": "x.py"}), "architectures: "),
    "an unknown activation": (changed("config", hidden_act="gelu"), "hidden_act: expected silu"),
    "a scaling that is unknown": (changed("config", rope_scaling={"rope_type": "dynamic"}), "rope_type: expected"),
    "no size": (changed("config", hidden_size=None), "hidden_size"),
    "a size beyond all bounds": (changed("config", hidden_size=1 << 60), "hidden_size"),
    "layers without end": (changed("config", num_hidden_layers=1 << 40), "num_hidden_layers"),
    "a tokenizer that does not match": (larger_tokenizer, "tokens, as the model has, received one of 601"),
    "a vocabulary that does not match": (changed("config", vocab_size=300), "expected (300, 32)"),
    "a tokenizer of another kind": (
        changed("tokenizer", model={"type": "Unigram"}),
        "tokenizer.json: not a usable tokenizer: model: expected BPE, received 'Unigram'",
    ),
    "no JSON": (lambda folder: (folder / "config.json").write_text("{"), "config.json: not valid JSON"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_does_not_fit_is_one_line(name: str, folder: Path):
    change, expected = UNFIT[name]
    change(folder)
    tracemalloc.start()
    with pytest.raises(CheckpointError) as refused:
        open_model(folder, say=lambda line: None)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500
    assert most < 8 << 20


def test_a_file_that_is_no_model_says_what_to_name_instead(folder: Path):
    with pytest.raises(CheckpointError, match=r"is a file of weights; name its folder, which holds a config\.json"):
        open_model(folder / WEIGHTS, say=print)
    as_pickle(folder)
    with pytest.raises(CheckpointError, match="is a pickle"):
        open_model(folder / "pytorch_model.bin", say=print)
    (folder / "a.txt").write_text("a text")
    with pytest.raises(CheckpointError, match="is a file; expected the folder of a run"):
        open_model(folder / "a.txt", say=print)


def test_factors_that_are_not_llamas_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    other = np.linspace(1, 8, 4).astype(np.float32)
    monkeypatch.setattr("tinygrad_chat.interchange.gguf_export.rotary_factors", lambda options: other)
    export_gguf(small_model("llama 3.1"), tmp_path / "a.gguf")
    with pytest.raises(CheckpointError, match=r"rope_freqs\.weight: expected Llama 3's, received others"):
        open_model(tmp_path / "a.gguf", say=print)


def test_who_needs_a_run_is_told_how_to_make_one(folder: Path):
    export_gguf(small_model("llama"), folder / "a.gguf")
    for path in (folder, folder / "a.gguf"):
        with pytest.raises(
            CheckpointError, match=rf"another program's model; convert it to a run with: tgc import {path}"
        ):
            open_checkpoint(path, SavedModel.load, say=print)


def test_without_a_tokenizer_tokens_are_numbers(folder: Path):
    (folder / "tokenizer.json").unlink()
    said: list[str] = []
    found = open_model(folder, say=said.append)
    assert said == [f"{folder}: has no tokenizer.json; tokens are written as numbers"]
    assert found.tokenizer.encode("17 4").tolist() == [17, 4]
    assert not found.taught_to_chat


def test_a_template_that_is_refused_leaves_a_model_of_texts(folder: Path):
    (folder / "chat_template.jinja").write_text("{{ messages | length }}")
    said: list[str] = []
    assert not open_model(folder, say=said.append).taught_to_chat
    assert len(said) == 1
    assert re.search("does more than put texts around messages.*cannot chat", said[0])


def test_the_ends_are_those_of_all_files(folder: Path):
    tokenizer = small_model("llama", chatml=True).tokenizer
    changed("generation_config", eos_token_id=[tokenizer.special_tokens["<|im_start|>"], 10**9, "x"])(folder)
    ends = open_model(folder, say=print).tokenizer.stop_tokens
    assert ends == {tokenizer.special_tokens[name] for name in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")}


def test_a_model_without_room_is_refused_before_it_is_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch):
    saved = open_model(folder, say=print)
    monkeypatch.setattr("tinygrad_chat.models.memory.available_memory", lambda: 1000)
    with pytest.raises(NoRoomError, match="parameters take at least"):
        load_model(saved)


def test_a_model_of_gigabytes_is_open_at_once_and_not_copied(tmp_path: Path):
    """Its numbers are a hole in the file: to read them would take memory, and to copy them time."""
    export_huggingface(small_model("llama", chatml=True), tmp_path)
    rows = 1 << 23
    changed("config", vocab_size=rows)(tmp_path)
    arrays = load_file(tmp_path / WEIGHTS)
    embeddings = ("lm_head.weight", "model.embed_tokens.weight")
    shapes = {name: (rows, 32) if name in embeddings else array.shape for name, array in arrays.items()}
    header, begin = {}, 0
    for name, shape in shapes.items():
        end = begin + 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
        begin = end
    stated = json.dumps(header).encode()
    with (tmp_path / WEIGHTS).open("wb") as file:
        file.write(len(stated).to_bytes(8, "little") + stated)
        os.truncate(file.fileno(), 8 + len(stated) + begin)
    (tmp_path / "tokenizer.json").unlink()
    tracemalloc.start()
    saved = open_model(tmp_path, say=lambda line: None)
    model = load_model(saved, kernels="numpy")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert begin > 1 << 30
    assert most < 4 << 20
    assert model.vocabulary == rows


def test_python_opens_what_the_commands_open(folder: Path):
    opened = tinygrad_chat.load(folder, kernels="numpy")
    assert opened.path == str(folder)
    assert "".join(opened.generate("To be", max_new_tokens=3, temperature=0))
    assert opened.chat().engine.template.turns.prompt == "<|im_start|>assistant\n"


def test_a_name_on_the_hub_is_downloaded_without_pickles(folder: Path, monkeypatch: pytest.MonkeyPatch):
    huggingface_hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub, the extra hub, is not installed")
    asked: list[Any] = []

    def snapshot_download(repository: str, **options: Any) -> str:
        asked.append((repository, options))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert open_model(Path("hub:owner/name@main"), say=print).path == folder
    patterns = ["*.json", "*.safetensors", "*.jinja"]
    assert asked == [("owner/name", {"revision": "main", "allow_patterns": patterns})]
    for name in ("hub:owner", "hub:owner/name/file.bin"):
        with pytest.raises(CheckpointError, match="expected hub:owner/name"):
            open_model(Path(name), say=print)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **b: 1 / 0)
    with pytest.raises(CheckpointError, match=r"cannot be downloaded from the Hugging Face hub \(division by zero\)"):
        open_model(Path("hub:owner/name"), say=print)


@pytest.mark.profile("ci")
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_is_damaged_is_opened_or_refused(tmp_path_factory: pytest.TempPathFactory, data):
    base = tmp_path_factory.getbasetemp() / "damaged-models"
    if not base.exists():
        export_huggingface(small_model("llama"), base)
        export_gguf(small_model("llama"), base / "model.gguf")
        (base / "chat_template.jinja").unlink()  # each damage to it costs a process
    gguf = data.draw(st.booleans())
    names = ["model.gguf"] if gguf else ["config.json", "tokenizer.json", "tokenizer_config.json", WEIGHTS]
    file = base / data.draw(st.sampled_from(names))
    whole = file.read_bytes()
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, min(len(content), 3000) - 1))
        content[at] = data.draw(st.sampled_from(list(b'"{}[]:,0919-. \x00\xff')))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tinygrad_chat.interchange.chats.turns_of", lambda *each: NANOCHAT)
        try:
            file.write_bytes(bytes(content))
            try:
                saved = open_model(base / "model.gguf" if gguf else base, say=lambda line: None)
                load_model(saved, kernels="numpy").token_logits(np.array([[1, 2]]))
            except TinygradChatError as error:
                assert "\n" not in str(error)  # noqa: PT017 - both ways are right
        finally:
            file.write_bytes(whole)
