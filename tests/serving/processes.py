"""A server as a process of its own, for tests that end it, and the run whose model it has."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cli.chatting import TOKENIZER, save_run
from tests.serving.talking import eventually
from tinygrad_chat import GPT
from tinygrad_chat.runs.checkpoint import find_checkpoints
from tinygrad_chat.runs.folder import RunFolder
from tinygrad_chat.runs.state import Progress, TrainingState

ROOT = Path(__file__).parents[2]
READY = re.compile(r" at http://127\.0\.0\.1:(\d+)")


def save_gpt(path: Path) -> RunFolder:
    """Write a run whose model can be asked: a GPT that has learned nothing."""
    run = save_run(path, layers=1, heads=2, width=8, context=64)
    state = TrainingState.load(find_checkpoints(run.checkpoints)[0])
    weights = GPT(TOKENIZER.size, state.config.model).parameters().state()
    dataclasses.replace(state, weights=weights, progress=Progress(step=1)).save(run.checkpoints)
    return run


class ServerProcess:
    """`tgc serve`, if there is a `pace` with a model that takes its time (paced.py), and its `log`."""

    def __init__(self, folder: Path, *flags: str, pace: float | None) -> None:
        module = ["tinygrad_chat"] if pace is None else ["tests.serving.paced", str(pace)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        self.log = folder / f"log-{len(list(folder.glob('log-*')))}"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *module, "serve", *flags],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        """What it has written so far."""
        return self.log.read_text()

    @property
    def port(self) -> int:
        """Where it listens. Fails where it ended instead."""
        eventually(lambda: READY.search(self.said) is not None or self.process.poll() is not None)
        found = READY.search(self.said)
        assert found, self.said
        return int(found[1])

    def end(self) -> int:
        """Wait for its end; return its exit code."""
        return self.process.wait(timeout=60)


@contextmanager
def server_process(folder: Path, *flags: str, port: int = 0, pace: float | None = 0.0) -> Iterator[ServerProcess]:
    """Serve the run `run` of a folder, which is made where there is none; kill the server at the latest here."""
    if not (folder / "runs" / "run").exists():
        save_run(folder / "runs" / "run")
    server = ServerProcess(folder, "runs/run", "--port", str(port), *flags, pace=pace)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()
