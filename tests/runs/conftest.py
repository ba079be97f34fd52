"""A finished run that is trained once, of which each test has its own copy."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from tests.tiny import tiny_settings
from tinygrad_chat.runs.folder import RunFolder
from tinygrad_chat.training.facts import resolve_with_facts
from tinygrad_chat.training.loop import train
from tinygrad_chat.training.run import Run, start_run


@pytest.fixture(scope="session")
def trained(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of two steps, each evaluated."""
    settings = tiny_settings(data=str(text), steps=2, eval_every=1)
    run = start_run(resolve_with_facts(settings)[0], tmp_path_factory.mktemp("trained") / "run")
    for _ in train(run):
        pass
    return run


@pytest.fixture
def finished(trained: Run, tmp_path: Path) -> Run:
    """A copy of that run, in a folder of runs of its own."""
    folder = tmp_path / "runs" / "received"
    shutil.copytree(trained.folder.path, folder)
    return dataclasses.replace(trained, folder=RunFolder(folder))
