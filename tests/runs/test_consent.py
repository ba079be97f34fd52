"""What a user has agreed to holds for one run, one matter and one machine."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.cli.conftest import Tgc, tgc  # noqa: F401 - a fixture
from tinygrad_chat.errors import UsageError
from tinygrad_chat.files import CACHE_VARIABLE
from tinygrad_chat.runs.consent import has_consent, note_consent
from tinygrad_chat.training.facts import resolve_with_facts
from tinygrad_chat.training.loop import train
from tinygrad_chat.training.run import Run, resume_run

Start = Callable[..., Run]


def test_consent_is_for_one_run_and_one_matter_on_one_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert not has_consent(tmp_path / "run", "a tracker")
    note_consent(tmp_path / "run", "a tracker")
    monkeypatch.chdir(tmp_path)
    assert has_consent(Path("run"), "a tracker")
    assert not has_consent(tmp_path / "run", "another tracker")
    assert not has_consent(tmp_path / "another run", "a tracker")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "another machine"))
    assert not has_consent(tmp_path / "run", "a tracker")


def test_nothing_of_it_stands_in_the_run(tmp_path: Path):
    (tmp_path / "run").mkdir()
    note_consent(tmp_path / "run", "a tracker")
    assert list((tmp_path / "run").iterdir()) == []


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, text: Path) -> list[str]:
    """What a stand-in of the hub's library was asked for."""
    asked: list[str] = []

    def answer(what: str, result: object) -> object:
        asked.append(what)
        return result

    info = SimpleNamespace(sha="0" * 40, siblings=[SimpleNamespace(rfilename="text.txt", size=900)])
    api = SimpleNamespace(dataset_info=lambda *_, **__: answer("list", info))
    module = SimpleNamespace(HfApi=lambda: api, hf_hub_download=lambda *_, **__: answer("file", str(text)))
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return asked


@pytest.fixture
def received(start: Start, asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run on data of the hub that was made on another machine."""
    run = start(data=["hub:owner/name:1.0"])
    for _ in train(run):
        pass
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "another machine"))
    asked.clear()
    return run.folder.path


def test_a_run_goes_on_with_data_of_the_hub_where_it_was_begun(start: Start, asked: list[str]):
    run = start(data="hub:owner/name")
    for _ in train(run):
        pass
    assert resume_run(run.folder.path, {"steps": 8}).progress.step == 6
    assert resolve_with_facts({"start_from": str(run.folder.path), "steps": 1})[0].data.name.startswith("hub:owner")


@pytest.mark.parametrize("begun", [True, False])
def test_a_received_run_reaches_the_hub_only_when_its_data_is_named_again(
    received: Path, asked: list[str], begun: bool
):
    if not begun:
        shutil.rmtree(received / "checkpoints")
    named = f"hub:owner/name@{'0' * 40}:1.0"
    with pytest.raises(UsageError, match=f"run: its settings name data .* to download it, add: --data {named}$"):
        resume_run(received, {"steps": 8})
    assert asked == []
    assert resume_run(received, {"steps": 8, "data": (named,)}).config.data.source == (named,)
    assert "file" in asked
    resume_run(received, {"steps": 8})
    (received / "config.toml").write_text(
        (received / "config.toml").read_text(encoding="utf-8").replace("owner/name", "owner/other"), encoding="utf-8"
    )
    if not begun:
        with pytest.raises(UsageError, match="add: --data hub:owner/other"):
            resume_run(received, {"steps": 8})


def test_nor_does_what_begins_with_its_model(received: Path, asked: list[str], text: Path):
    with pytest.raises(UsageError, match="its settings name data on the Hugging Face hub"):
        resolve_with_facts({"start_from": str(received), "steps": 1})
    assert asked == []
    resolve_with_facts({"start_from": str(received), "steps": 1, "data": str(text)})


def test_nor_does_its_evaluation(received: Path, asked: list[str], text: Path, tgc: Tgc):  # noqa: F811
    code, _, err = tgc("eval", str(received))
    assert (code, asked) == (2, [])
    assert "its settings name data on the Hugging Face hub" in err
    assert tgc("eval", str(received), "--data", str(text))[0] == 0
