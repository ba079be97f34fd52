"""A run says how its data is split, and goes on as it began, also where it began before there was a choice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import tinygrad_chat
from tests.tiny import tiny_settings
from tinygrad_chat.config.record import from_saved
from tinygrad_chat.errors import ConfigError
from tinygrad_chat.training.loop import train
from tinygrad_chat.training.run import Run, resume_run

Start = Callable[..., Run]
TEXTS = [f"document {number}" for number in range(60)]


@pytest.fixture
def many(tmp_path: Path) -> Path:
    path = tmp_path / "many.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


def finish(run: Run) -> Run:
    for _ in train(run):
        pass
    return run


@pytest.mark.parametrize(("chosen", "split"), [({}, "documents"), ({"split": "end"}, "end")])
def test_the_configuration_says_which_split_it_was_and_a_resumed_run_has_it(
    start: Start, many: Path, chosen, split: str
):
    run = finish(start(data=str(many), **chosen))
    assert (run.config.data.split, run.dataset.split) == (split, split)
    assert run.folder.read_config().data.split == split
    again = resume_run(run.folder.path, {"steps": 8})
    assert again.dataset.summary() == run.dataset.summary()
    with pytest.raises(ConfigError, match=f"--split: the run to resume has {split}"):
        resume_run(run.folder.path, {"split": "documents" if split == "end" else "end"})


def test_a_single_text_is_split_at_its_end(start: Start):
    assert start().config.data.split == "end"


def test_a_run_from_before_there_was_a_choice_goes_on_at_the_end_of_its_text(start: Start, many: Path):
    run = finish(start(data=str(many), split="end"))
    tables = run.config.tables()
    del tables["data"]["split"]
    assert from_saved(tables, source="an old file") == run.config


def test_ones_own_texts_are_split_again_as_the_run_began(tmp_path: Path):
    out = str(tmp_path / "own")
    for chosen, split in (("auto", "documents"), ("end", "end")):
        model = tinygrad_chat.train(TEXTS, **tiny_settings(split=chosen), out=f"{out}-{split}")
        assert model.config.data.split == split
        again = tinygrad_chat.train(TEXTS, resume=True, out=f"{out}-{split}", steps=7)
        assert again.config.data.split == split
