"""Training takes no more memory the longer it goes on, and where there is not enough, it says so."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bench.survival import TEXT, watch_memory
from tinygrad_chat import GPT
from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.errors import MemoryShortageError, NoRoomError
from tinygrad_chat.training import build, loop
from tinygrad_chat.training.loop import train
from tinygrad_chat.training.run import Run, start_run


@pytest.mark.profile("ci")
def test_steps_and_evaluations_take_no_more_memory(tmp_path: Path):
    """`python -m bench survival` takes 20,000 steps and 2,000 evaluations."""
    (tmp_path / "text.txt").write_text(TEXT)
    seen = watch_memory(tmp_path, 300)
    assert (seen["steps"], seen["evaluations"]) == (300, 31)
    assert len(seen["curve"]) > 10
    assert seen["growth"] < 0.02


TOO_LARGE = """
import resource, sys, psutil
from tinygrad_chat.backend import Compute
from tinygrad_chat.cli.app import run
from tinygrad_chat.training import build
build.expect_room_for_step = lambda *given, **options: None  # as if it had come out a little too low
Compute.choose("numpy", sys.argv[2]).kernel_table  # a compiler takes some, too
resource.setrlimit(resource.RLIMIT_DATA, (psutil.Process().memory_info().data + (250 << 20), -1))
sys.exit(run(["train", "--out", "r", "--data", "text.txt", "--batch-size", "5000", *sys.argv[1:]]))
"""


@pytest.mark.profile("ci")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="others do not keep the limit")
@pytest.mark.parametrize(("kernels", "threads"), [("numba", "2"), ("numpy", "1"), ("numpy", "2")])
def test_a_run_that_outgrows_memory_says_what_to_change_and_is_whole(tmp_path: Path, kernels: str, threads: str):
    if kernels == "numba":
        pytest.importorskip("numba")
    (tmp_path / "text.txt").write_text(TEXT)
    command = [sys.executable, "-c", TOO_LARGE, "--kernels", kernels, "--threads", threads, "--backend", "numpy"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert re.fullmatch(
        r"tgc: step 0: .*, with [\d,]+ MiB free on cpu; split the batch into more micro-batches with "
        r"--grad-accumulation, or choose .*; the checkpoint of step 0 is on disk\n",
        done.stderr,
    )
    assert json.loads((tmp_path / "r/outcome.json").read_text())["outcome"] == "failed"
    assert "--grad-accumulation" in (tmp_path / "r/report.md").read_text()


def test_a_batch_that_cannot_fit_is_refused_before_anything_is_written(
    tiny: Callable[..., TrainingConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = tiny(batch_size=10**9)
    monkeypatch.setattr(GPT, "__init__", None)  # before a model is built, too
    for _ in range(2):
        with pytest.raises(NoRoomError, match=r"a step of 1,000,000,000 windows of --context 8 at once takes at least"):
            start_run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    one_window_each = config.replace(grad_accumulation=10**9)
    with pytest.raises(TypeError):  # one window at a time would do: it gets as far as the model
        start_run(one_window_each, tmp_path / "run")


@pytest.mark.parametrize(("backend", "gradients"), [("numpy", 2), ("cupy", 1)])
def test_only_threads_of_the_host_have_gradients_of_their_own(
    tiny: Callable[..., TrainingConfig], monkeypatch: pytest.MonkeyPatch, backend: str, gradients: int
):
    compute = SimpleNamespace(
        backend=SimpleNamespace(name=backend, memory_free=lambda: 1 << 40), array_dtype=np.dtype(np.float32)
    )
    counted: list[int] = []

    def stop(*_: object, buffers: int, **__: object) -> None:
        counted.append(buffers)
        raise NoRoomError

    monkeypatch.setattr(build, "choose_compute", lambda config: compute)
    monkeypatch.setattr(build, "expect_room_for_step", stop)
    with pytest.raises(NoRoomError):
        build.build_for_training(tiny(threads=2, batch_size=4), 30)
    assert counted == [3 + gradients]  # AdamW's weights and averages, and the gradients


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't start new thread")])
def test_whatever_says_that_there_is_no_room_ends_the_run_the_same_way(
    start: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, error: Exception
):
    run = start()

    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(loop, "update", full)
    with pytest.raises(MemoryShortageError, match=r"step 0: .*--grad-accumulation"):
        list(train(run))
    assert run.folder.read_outcome()["outcome"] == "failed"
