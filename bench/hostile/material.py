"""What is damaged: three small runs, weights of nanochat's, a recipe and a text, all of them whole."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import pkgutil
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.numpy import load_file

import tinygrad_chat
from tinygrad_chat.cli.app import run
from tinygrad_chat.files import CACHE_VARIABLE
from tinygrad_chat.interchange.nanochat_files import export_nanochat, import_nanochat
from tinygrad_chat.reports.writing import write_report
from tinygrad_chat.runs.checkpoint import to_safetensors
from tinygrad_chat.runs.folder import RunFolder
from tinygrad_chat.runs.state import SavedModel
from tinygrad_chat.training.facts import resolve_with_facts
from tinygrad_chat.training.loop import train
from tinygrad_chat.training.run import Run, resume_run, start_run

DATA = Path("text.txt")
TEXT = "The quick brown fox jumps over the lazy dog.\n" * 20
NOT_HERE = ("tinygrad_chat.__main__", "tinygrad_chat.kernels.cuda", "tinygrad_chat.kernels.numba")
STOPPED = 4  # the step at which the run was interrupted that is damaged; it has six
SIZES: dict[str, Any] = {"layers": 1, "heads": 2, "width": 8, "context": 8, "batch_size": 3, "threads": 1}
RUN: dict[str, Any] = {**SIZES, "steps": 6, "eval_every": 2, "checkpoint_every": 1, "log_every": 1, "warmup": 2}
CHATS = Path("chats.jsonl")
CHAT = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hello."}]}
TALK: dict[str, Any] = {**SIZES, "context": 32, "steps": 1, "eval_every": 1, "data": str(CHATS)}
NANOCHAT: dict[str, Any] = {**SIZES, "model": "nanochat", "width": 24, "steps": 1, "eval_every": 1}


@dataclass(frozen=True)
class Material:
    """Where the whole files are, and how the interrupted run ends when it is left alone.

    runs/a        interrupted: what is damaged
    runs/b        finished
    runs/talk     taught to chat
    weights/      a model of nanochat's, with its model_config inside and, without it, beside
    text.txt      what they were trained on
    outside/      what nothing may be written to, though links lead there
    """

    path: Path
    log: bytes
    weights: bytes

    def copy(self, to: Path) -> None:
        """Copy it all, with what is no plain file."""
        shutil.copytree(self.path, to, symlinks=True)
        os.mkfifo(to / "outside" / "pipe")
        (to / "outside" / "zero").symlink_to("/dev/zero")


def make_material(path: Path) -> Material:
    """Make the whole files in a new folder `path`; afterwards this process has imported all that commands need."""
    for module in pkgutil.walk_packages(tinygrad_chat.__path__, "tinygrad_chat.", onerror=lambda name: None):
        if not module.name.startswith(NOT_HERE):
            importlib.import_module(module.name)
    path.mkdir(parents=True)
    before = os.environ.get(CACHE_VARIABLE)
    os.environ[CACHE_VARIABLE] = str(path / "cache")
    try:
        with contextlib.chdir(path):  # so that no name in the runs leads back here from their copies
            return _make()
    finally:
        os.environ.pop(CACHE_VARIABLE)
        if before is not None:
            os.environ[CACHE_VARIABLE] = before


def _make() -> Material:
    runs = Path("runs")
    DATA.write_text(TEXT)
    CHATS.write_text(f"{json.dumps(CHAT)}\n" * 20)
    _train(runs / "talk", **TALK)
    _train(runs / "b", seed=2, **RUN)
    _train(runs / "a", until=STOPPED, **RUN)
    whole = Path("whole")
    shutil.copytree(runs / "a", whole)
    for _ in train(resume_run(whole, {})):
        pass
    log, weights = (whole / "log.jsonl").read_bytes(), last_weights(whole).read_bytes()
    shutil.rmtree(whole)
    _make_weights(Path("weights"))
    for command in (["runs"], ["compare", "a", "b", "--out", "plots"], ["sample", "--checkpoint", "a", "--seed", "1"]):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            run(command)  # which imports what the copies need: none of these sets a limit
    Path("outside/empty").mkdir(parents=True)
    Path("outside/victim.txt").write_text("mine\n")
    return Material(Path.cwd(), log, weights)


def _make_weights(folder: Path) -> None:
    """Write the weights of a model of nanochat's, with and without the model_config that upstream keeps beside them."""
    folder.mkdir()
    trained = _train(Path("nanochat"), **NANOCHAT)
    saved = trained.folder.open_newest(SavedModel.load, say=print)
    whole, bare = folder / "model.safetensors", folder / "bare.safetensors"
    export_nanochat(saved, whole)
    with safe_open(whole, framework="numpy") as file:
        config = json.loads(file.metadata()["model_config"])
    bare.write_bytes(to_safetensors(load_file(whole)))
    (folder / "meta.json").write_text(json.dumps({"step": 1, "model_config": config}))
    shutil.rmtree(trained.folder.path)
    import_nanochat(whole, RunFolder(Path("runs/imported")))
    write_report(RunFolder(Path("runs/imported")))


def _train(path: Path, *, until: int | None = None, **settings: Any) -> Run:
    trained = start_run(resolve_with_facts({"data": str(DATA), **settings})[0], path)
    for _ in train(trained, should_stop=lambda: until is not None and trained.progress.step >= until):
        pass
    return trained


def last_weights(folder: Path) -> Path:
    """Return where the weights of a run's last step are."""
    return folder / "checkpoints" / f"step-{RUN['steps']:06d}" / "weights.safetensors"
