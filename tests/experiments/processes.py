"""Stand-ins for the processes of runs, which take no time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.experiments import jobs
from tinygrad_chat.experiments.planned import OUTPUT, RESULT

DIGEST = "0" * 64
Behaviour = Callable[[Path], bool]
"""What a process does whenever it is looked at; whether it has ended."""


class Processes:
    """Stand-ins for processes: each ends when it was looked at twice, unless `behave` says otherwise by its name."""

    def __init__(self) -> None:
        self.behave: dict[str, Behaviour] = {}
        self.started: list[dict[str, Any]] = []
        self.alive: set[str] = set()
        self.most_alive = 0
        self.stopped: list[str] = []

    def start(self, config: TrainingConfig, path: Path, **options: Any) -> _Process:
        self.started.append({"name": path.name, "threads": config.compute.threads, **options})
        self.alive.add(path.name)
        self.most_alive = max(self.most_alive, len(self.alive))
        return _Process(self, path)

    def names(self) -> list[str]:
        return [each["name"] for each in self.started]


class _Process:
    def __init__(self, all_of_them: Processes, path: Path) -> None:
        self._all, self._path, self._looks = all_of_them, path, 0

    def ended(self) -> bool:
        self._looks += 1
        ended = self._all.behave.get(self._path.name, self._finish)(self._path)
        if ended:
            self._all.alive.discard(self._path.name)
        return ended

    def _finish(self, path: Path) -> bool:
        if self._looks < 2:
            return False
        if path.name not in self._all.stopped:
            write_result(path)
        return True

    def stop(self) -> None:
        self._all.stopped.append(self._path.name)

    def kill(self) -> None:
        self._all.alive.discard(self._path.name)


def write_result(path: Path, **values: Any) -> None:
    path.mkdir(parents=True, exist_ok=True)
    result = {"parameters": 9, "steps": 6, "data_sha256": DIGEST, "diverged": False, "seconds": 1.0}
    losses = {"val_loss": 2.0, "val_bpb": 3.0, "best_val_loss": 2.0}
    (path / RESULT).write_text(json.dumps({**result, **losses, **values}))


def crash(path: Path) -> bool:
    path.mkdir(parents=True, exist_ok=True)
    (path / OUTPUT).write_text("a line\nkilled by SIGKILL\n\n")
    return True


def stand_ins(monkeypatch: pytest.MonkeyPatch) -> Processes:
    """Let them take the place of processes."""
    found = Processes()
    monkeypatch.setattr(jobs, "Job", found.start)
    monkeypatch.setattr(jobs, "POLL", 0)
    return found
