"""A run's folder: where each of its files stands, and which run is the newest."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import tomli_w

from tinygrad_chat.errors import CheckpointError, UsageError
from tinygrad_chat.training.checkpoint import find_checkpoints
from tinygrad_chat.training.config import TrainingConfig, to_settings
from tinygrad_chat.training.storage import explained, write_whole

RUNS = Path("runs")


class RunFolder:
    """The files of one run.

    config.toml       every setting, resolved; `tgc train --config` takes it
    environment.json  the machine and versions that made it
    log.jsonl         one JSON object a line: losses, rates, evaluations
    checkpoints/      the two newest and the best
    samples/          a text for each evaluation
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.toml"
        self.environment = path / "environment.json"
        self.log = path / "log.jsonl"
        self.checkpoints = path / "checkpoints"
        self.samples = path / "samples"

    def create(self) -> None:
        """Make the folder. Raises UsageError where it already holds a run."""
        if find_checkpoints(self.checkpoints) or (self.log.exists() and self.log.stat().st_size):
            raise UsageError(f"--out {self.path}: holds a run already; add --resume to go on, or choose another folder")
        with explained(self.path):
            for folder in (self.checkpoints, self.samples):
                folder.mkdir(parents=True, exist_ok=True)
            self.log.touch()

    def write_config(self, config: TrainingConfig) -> None:
        """Save the resolved configuration."""
        write_whole(self.config, tomli_w.dumps(to_settings(config)).encode())

    def write_environment(self, environment: Mapping[str, Any]) -> None:
        """Save what the run was made with."""
        write_whole(self.environment, json.dumps(environment, indent=1).encode())

    def write_sample(self, step: int, text: str) -> None:
        """Save the text that the model wrote after `step` updates."""
        write_whole(self.samples / f"step-{step:06d}.txt", text.encode())

    def append_to_log(self, record: Mapping[str, Any]) -> None:
        """Add one line to the log."""
        with explained(self.log), self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")

    def was_evaluated(self, step: int) -> bool:
        """Return whether the log has an evaluation of `step`."""
        return any(record["step"] == step and "val_loss" in record for _, record in self._records())

    def cut_log(self, step: int) -> None:
        """Drop the log's lines from `step` on, and a line that a crash cut short: they are about to come again."""
        write_whole(self.log, b"".join(line + b"\n" for line, record in self._records() if record["step"] < step))

    def _records(self) -> Iterator[tuple[bytes, dict[str, Any]]]:
        """Yield the log's whole lines, each beside the record that it holds."""
        for line in self.log.read_bytes().splitlines() if self.log.exists() else []:
            try:
                record = json.loads(line)
                int(record["step"])
            except (ValueError, KeyError, TypeError):
                continue
            yield line, record

    def newest_checkpoint(self) -> Path:
        """Return the newest checkpoint's path. Raises CheckpointError where there is none."""
        found = find_checkpoints(self.checkpoints)
        if not found:
            raise CheckpointError(f"{self.path}: no checkpoint there; train one with: tgc train --out {self.path}")
        return found[-1]


def find_checkpoint(path: Path | None) -> Path:
    """Return the checkpoint that `path` means: itself, a run's newest, or with None the newest run's.

    Raises CheckpointError where there is none.
    """
    if path is None:
        return newest_run().newest_checkpoint()
    if (path / "state.json").exists():
        return path
    return find_checkpoints(path)[-1] if find_checkpoints(path) else RunFolder(path).newest_checkpoint()


def claim_new_run(config: TrainingConfig) -> RunFolder:
    """Make a folder below `runs/` that says what and when: runs/mini-gpt-pydoc-20260131-235959.

    Two runs that start in the same second get two folders.
    """
    data = Path(config.data).resolve().stem[:40]
    name = f"{config.model}-{data}-{datetime.now():%Y%m%d-%H%M%S}"
    path, number = RUNS / name, 1
    while True:
        try:
            with explained(path):
                path.mkdir(parents=True)
            return RunFolder(path)
        except FileExistsError:
            number += 1
            path = RUNS / f"{name}-{number}"


def newest_run() -> RunFolder:
    """Return the run below `runs/` with the newest checkpoint. Raises CheckpointError where there is none."""
    found = [(find_checkpoints(run / "checkpoints"), run) for run in RUNS.glob("*")]
    dated = [(checkpoints[-1].stat().st_mtime, run) for checkpoints, run in found if checkpoints]
    if not dated:
        raise CheckpointError(f"no checkpoint below {RUNS}/; train a model first with: tgc train")
    return RunFolder(max(dated)[1])
