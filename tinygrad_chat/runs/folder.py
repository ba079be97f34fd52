"""A run's folder: its layout, the lock on it, and the name of a new one."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from tinygrad_chat.config.files import parse_toml, to_toml
from tinygrad_chat.config.record import TrainingConfig, from_saved
from tinygrad_chat.errors import CheckpointError, ConfigError, FormatError, UsageError
from tinygrad_chat.files import (
    HeldFolder,
    exclusive_lock,
    explained,
    hold,
    is_there,
    list_folder,
    open_plain,
    read_plain,
    real_path,
    remove_partials,
    write_atomic,
)
from tinygrad_chat.formatting import one_line, quoted
from tinygrad_chat.runs.checkpoint import Load, Loaded, find_checkpoints, load_newest
from tinygrad_chat.runs.finding import RUNS, explain_missing, runs_in
from tinygrad_chat.runs.log import Marks, RunLog
from tinygrad_chat.runs.records import Environment, Log, LogLine, Outcome, TimingLine, read_log
from tinygrad_chat.schema import LARGEST_FILE, read_json
from tinygrad_chat.text.shares import without_shares

FOLDERS_OF_TRACKERS = ("tensorboard", "wandb")


class RunFolder:
    """The files of one run.

    config.toml       every setting that applies, resolved; `tgc train --config` reads it
    environment.json  the machines and versions that made it: one entry per start
    log.jsonl         one JSON object per line: losses, rates, evaluations; reproducible for the same seed
    timing.jsonl      a line beside each of those: time taken, memory used
    log-damaged.jsonl log.jsonl as it was found with lines missing; likewise for the timing
    outcome.json      how training ended: absent while it is running, or if it was killed
    checkpoints/      the newest and the best
    samples/          a text for each evaluation
    evaluation.json   after `tgc eval`: how many problems of each task a checkpoint solved
    report.html       the whole run for people to read; report.md, too
    products.json     on a GPU: which algorithm computes each matrix product
    tracker.json      with --track: the name by which the tracker knows the run
    """

    def __init__(self, path: Path) -> None:
        self._held: HeldFolder | None = None
        self.moved_from: Path | None = None
        self._place(path)
        self.lines = RunLog(self.log, self.timing)

    def _place(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.toml"
        self.environment = path / "environment.json"
        self.log = path / "log.jsonl"
        self.timing = path / "timing.jsonl"
        self.outcome = path / "outcome.json"
        self.checkpoints = path / "checkpoints"
        self.samples = path / "samples"
        self.scores = path / "evaluation.json"
        self.products = path / "products.json"
        self.report = path / "report.html"

    def follow(self) -> None:
        """Update all paths if the folder was moved since `locked` began; `moved_from` is then its old path.

        Raises StorageError if it cannot be found.
        """
        found = self.path if self._held is None else self._held.find(self.path)
        if found != self.path:
            self.moved_from = self.path
            self._place(found)
            self.lines.move(self.log, self.timing)

    @property
    def resume_command(self) -> str:
        """The shell command that resumes the run."""
        return f"tgc train --resume --out {quoted(self.path)}"

    def create(self, *, resumed: bool = False) -> None:
        """Create the folder. Raises UsageError if it already holds a run that is not `resumed`, or foreign files that a
        run would overwrite."""
        self.expect_own()
        checkpoints = find_checkpoints(self.checkpoints)
        foreign = None if resumed or checkpoints else self._foreign_file()
        if foreign is not None:
            raise UsageError(
                f"--out {self.path}: holds a {foreign.name} that tgc did not write; choose another folder, as in "
                f"--out {quoted(self.path / 'run')}"
            )
        if (checkpoints or _has_content(self.log)) and not resumed:
            raise UsageError(
                f"--out {self.path}: holds a run already; add --resume to continue it, or choose another folder"
            )
        with explained(self.path, "read"):
            runs = [] if resumed else runs_in(self.path)
        if runs:
            raise UsageError(
                f"--out {self.path}: is a folder of runs; expected a new one, as in --out {quoted(self.path / 'NAME')}"
            )
        with explained(self.path):
            for folder in (self.checkpoints, self.samples):
                folder.mkdir(parents=True, exist_ok=True)
            self.log.touch()

    def _foreign_file(self) -> Path | None:
        """Return a file that something else wrote where a run writes its own, None if there is none.

        There is none either if config.toml is just what a run would write: a run was killed before its first
        checkpoint.
        """
        files = (self.config, self.environment, self.log, self.timing, self.outcome, self.scores)
        written = [file for file in (*files, self.report, self.report.with_suffix(".md")) if _has_content(file)]
        with contextlib.suppress(ConfigError):
            settings = to_toml(self.read_config().tables()).encode()
            if read_plain(self.config, most=LARGEST_FILE) == settings:
                return None
        return next(iter(written), None)

    def expect_own(self) -> None:
        """Raise StorageError, before anything is written, if a file or folder of the run is something else, such as a
        link that leads out of it, or cannot be read: what could not be read must not be overwritten."""
        with explained(self.path, "read"):
            for folder in (self.checkpoints, self.samples, *(self.path / name for name in FOLDERS_OF_TRACKERS)):
                list_folder(folder)
            for file in (self.config, self.environment, self.log, self.timing, self.outcome, self.products):
                if is_there(file):
                    open_plain(file).close()

    def begin(
        self, config: TrainingConfig, environment: Mapping[str, Any], *, step: int, marks: Marks | None, resumed: bool
    ) -> bool:
        """Prepare the folder for a run that continues from `step`: cut its log there, as the `marks` of its checkpoint
        say (None without a checkpoint). Return whether lines of it were damaged.

        Raises UsageError if it already holds another run.
        """
        self.create(resumed=resumed)
        self.outcome.unlink(missing_ok=True)
        damaged = self.lines.go_on(marks, step)
        self.write_config(config)
        self.write_environment(environment, step=step)
        return damaged

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training here. Raises UsageError if one already is."""
        self.moved_from = None
        with exclusive_lock(self.path), hold(self.path) as self._held:
            self.expect_own()
            remove_partials(self.path, follow=True)
            for folder in (self.checkpoints, self.samples):
                remove_partials(folder)
            try:
                yield
            finally:
                self._held = None

    def write_config(self, config: TrainingConfig) -> None:
        """Save the resolved configuration."""
        write_atomic(self.config, to_toml(config.tables()).encode())

    def write_environment(self, environment: Mapping[str, Any], *, step: int) -> None:
        """Save the environment in which the run continues from `step`."""
        before = [entry for entry in self.environments() if entry["from_step"] < step]
        write_atomic(self.environment, json.dumps([*before, {"from_step": step, **environment}], indent=1).encode())

    def environments(self) -> list[Environment]:
        """Return the environments of the run, an entry for each start that contributed steps.

        Empty if the file is damaged or missing. Raises StorageError if it cannot be read.
        """
        try:
            with explained(self.environment, "read"):
                return read_json(self.environment, list[Environment]) if is_there(self.environment) else []
        except FormatError:  # a run can do without it
            return []

    def write_outcome(self, outcome: str, *, step: int, seconds: float, reason: str = "") -> None:
        """Save how the run ended, as an `Outcome`; `seconds` are those of training."""
        self.follow()
        record = {"outcome": outcome, "step": step, "seconds": seconds, "reason": one_line(reason)}
        write_atomic(self.outcome, json.dumps(record, indent=1).encode())

    def read_outcome(self) -> Outcome:
        """Return what `write_outcome` wrote. Raises OSError or FormatError if that cannot be read."""
        return read_json(self.outcome, Outcome, source=self.outcome.name)

    def outcome_is(self, outcome: str) -> bool:
        """Return whether the run ended with that outcome, as far as the folder says."""
        try:
            return self.read_outcome()["outcome"] == outcome
        except (OSError, FormatError):
            return False

    def write_sample(self, step: int, text: str) -> None:
        """Save the text that the model generated after `step` updates."""
        self.follow()
        write_atomic(self.samples / f"step-{step:06d}.txt", text.encode())

    def append(self, record: Mapping[str, Any], timing: Mapping[str, Any]) -> None:
        """Append a line to the log, and one to the timing."""
        self.follow()
        self.lines.append(record, timing)

    def was_evaluated(self, step: int) -> bool:
        """Return whether the log has an evaluation of `step`."""
        return any(record["step"] == step and "val_loss" in record for record in self.records())

    def read_log(self) -> Log[LogLine]:
        """Return the log's lines. Raises StorageError if it cannot be read."""
        return read_log(self.log, LogLine)

    def read_timing(self) -> Log[TimingLine]:
        """Return the timing's lines. Raises StorageError if it cannot be read."""
        return read_log(self.timing, TimingLine)

    def records(self) -> Sequence[Mapping[str, Any]]:
        """Return the records of the log's complete lines."""
        return self.read_log().records

    def timings(self) -> Sequence[Mapping[str, Any]]:
        """Return the records of the timing's complete lines."""
        return self.read_timing().records

    def newest_checkpoint(self) -> Path:
        """Return the newest checkpoint's path, complete or not. Raises CheckpointError if there is none."""
        found = find_checkpoints(self.checkpoints)
        if not found:
            missing = explain_missing(self.path)
            with explained(self.path, "read"):
                if not missing and not is_there(self.path, follow=True):
                    missing = "no such file or folder; tgc runs lists the runs"
            default = f"no checkpoint there; train one with: tgc train --out {quoted(self.path)}"
            raise CheckpointError(f"{self.path}: {missing or default}")
        return found[-1]

    def open_newest(self, load: Load[Loaded], *, say: Callable[[str], None]) -> Loaded:
        """Load the newest complete checkpoint with `load`; `say` reports those that were skipped.

        Raises CheckpointError if none is complete.
        """
        checkpoint = load_newest(self.checkpoints, load, say=say)
        if checkpoint is None:
            damaged = self.newest_checkpoint()
            raise CheckpointError(f"{damaged.parent}: no complete checkpoint there; start a new run in another folder")
        return checkpoint

    def read_config(self) -> TrainingConfig:
        """Return the configuration in config.toml. Raises ConfigError if it cannot be read."""
        try:
            text = read_plain(self.config, most=LARGEST_FILE).decode()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self.config}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
        return from_saved(parse_toml(text, source=str(self.config)), source=str(self.config))


def _has_content(file: Path) -> bool:
    return is_there(file) and file.stat().st_size > 0


def claim_new_run(config: TrainingConfig) -> RunFolder:
    """Create a folder below `runs/`, named by model, data and time: runs/mini-gpt-pydoc-20260131-235959.

    Runs that start in the same second get different folders.
    """
    path, number = new_run_path(config.recipe.model, without_shares(config.data.source)[0]), 1
    name = path.name
    while True:
        try:
            with explained(path):
                path.mkdir(parents=True)
            return RunFolder(path)
        except FileExistsError:
            number += 1
            path = RUNS / f"{name}-{number}"


def new_run_path(what: str, source: Path | str | None = None) -> Path:
    """Return a path below `runs/` whose name says what, from which file and when, in characters safe in any path."""
    stem = "" if source is None else re.sub(r"[^\w.]+", "-", real_path(source).stem[:40]).strip("-.") or "text"
    return RUNS / "-".join(filter(None, [what, stem, f"{datetime.now():%Y%m%d-%H%M%S}"]))
