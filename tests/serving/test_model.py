"""The model of a run that is being trained: a newer checkpoint is taken at the next request, and memory has a limit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")

from tests.serving.asking import asking, chat
from tinygrad_chat import train
from tinygrad_chat.errors import NoRoomError
from tinygrad_chat.runs.lookup import open_checkpoint
from tinygrad_chat.runs.state import SavedModel
from tinygrad_chat.serving import model as model_module
from tinygrad_chat.serving.model import ModelSource
from tinygrad_chat.serving.options import ServingOptions


def ignore(line: str) -> None:
    """Say nothing."""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of two steps."""
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("the cat sat on the mat. " * 40)
    train_to(2)
    return Path("runs/a")


def train_to(steps: int) -> None:
    resumed: dict[str, Any] = {"resume": True} if Path("runs/a").is_dir() else {}
    settings = {"layers": 1, "heads": 2, "width": 8, "context": 16, "batch_size": 2, "eval_tokens": 64}
    more = {} if resumed else {"data": "text.txt", **settings}
    train(out="runs/a", steps=steps, **more, **resumed)


def source(run: Path, **settings: Any) -> tuple[ModelSource, list[str]]:
    said: list[str] = []
    saved = open_checkpoint(run, SavedModel.load, say=ignore)
    return ModelSource(saved, ServingOptions(rows=2, **settings), say=said.append), said


def test_a_newer_checkpoint_answers_the_next_request_where_that_is_wanted(run: Path):
    following, said = source(run, follow=True)
    staying, _ = source(run)
    assert following.newest().step == staying.newest().step == 2
    with asking(newest=following.newest) as client:
        train_to(4)
        asked = {"prompt": "the", "max_tokens": 2}
        found = client.post("/v1/completions", json=asked).json()
        assert (found["system_fingerprint"], found["model"]) == ("step-4", "a")
    assert staying.newest().step == 2
    assert said == ["now serving step 4"]


def test_a_newer_checkpoint_that_is_damaged_is_told_once_and_the_one_before_stays(run: Path):
    following, said = source(run, follow=True)
    damaged = run / "checkpoints" / "step-000009"
    damaged.mkdir()
    (damaged / "state.json").write_text("{}")
    assert following.newest().step == following.newest().step == 2
    assert len(said) == 1


def test_memory_that_is_not_there_is_refused_before_it_is_taken(run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(model_module, "available_memory", lambda: 1 << 20)
    with pytest.raises(NoRoomError, match="are free"):
        source(run)
    source(run, cache_mib=1)  # which fits


def test_a_limit_below_what_the_rows_need_is_refused(run: Path):
    saved = open_checkpoint(run, SavedModel.load, say=ignore)
    with pytest.raises(NoRoomError, match="--cache-mib allows 1 MiB"):
        ModelSource(saved, ServingOptions(rows=1024, cache_mib=1), say=ignore)


def test_a_run_that_cannot_chat_is_served_by_its_name(run: Path):
    found, _ = source(run)
    with asking(found.served) as client:
        assert client.get("/v1/models").json()["data"][0]["id"] == "a"
        assert client.post("/v1/chat/completions", json=chat()).status_code == 400
