"""The content of a run's report, read from its folder alone, so that it can be rewritten at any time for any run.

Reading does not depend on how a run ended: for one that was killed or damaged, everything that is there is reported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tinygrad_chat.config.groups import UNBOUNDED
from tinygrad_chat.config.record import SPECS, TrainingConfig, heading_of
from tinygrad_chat.files import real_path
from tinygrad_chat.formatting import as_command, count, decimal_number, duration, grouped_number, one_line
from tinygrad_chat.machine.memory import KINDS
from tinygrad_chat.option import unmet_need
from tinygrad_chat.reports.commands import commands_of
from tinygrad_chat.reports.samples import known, read_samples
from tinygrad_chat.reports.summary import RunSummary, evaluations, is_number, summarize_run
from tinygrad_chat.runs.checkpoint import find_checkpoints, is_temporary, step_of
from tinygrad_chat.runs.folder import RunFolder
from tinygrad_chat.runs.scores import Scores, mean_centred, read_scores
from tinygrad_chat.runs.state import taught_to_chat

Record = Mapping[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Setting:
    """A setting as text for people, and whether it is the default."""

    name: str
    value: str
    default: bool


@dataclass(frozen=True)
class Report:
    """All that a report says; `records` and `timings` are the log's lines that have a step."""

    summary: RunSummary
    config: TrainingConfig | None
    """None if config.toml cannot be read."""
    records: Sequence[Record]
    timings: Sequence[Record]
    environments: Sequence[Record]
    samples: Sequence[tuple[int, str]]
    """Steps, and what the model wrote after each."""
    checkpoints: Sequence[Path]
    """Those that are on disk, oldest first."""
    chats: bool
    """Whether the newest of them holds a model that was taught to chat."""
    scores: Sequence[Scores]
    """How many problems of each task it solved, by step; empty if it was never evaluated on tasks."""
    left_out: Sequence[str]
    """Why some of the samples, environments and scores are missing; for everything else, the summary says so."""

    @property
    def title(self) -> str:
        """Which model was trained on what data."""
        if self.config is None:
            return real_path(self.summary.path).name
        return f"{self.config.recipe.model} on {Path(self.config.data.name).name or self.config.data.name}"

    @property
    def model(self) -> str:
        """The model's shape, in a line; empty if nothing is known of it."""
        if self.config is None:
            return ""
        options = self.config.model
        blocks = [count(options.layers, "layer"), count(options.heads, "head")] if options.layers else []
        shape = [*blocks, f"width {options.width}", f"context {options.context}"]
        parent = [f"weights from {self.summary.parent}"] if self.summary.parent else []
        return ", ".join([*shape, self.config.optimizer.kind, f"seed {self.config.run.seed}", *parent])

    @property
    def outcome(self) -> str:
        """How the run ended and why, in a line."""
        summary = self.summary
        whole = summary.steps is None or summary.steps == summary.step
        done = count(summary.step or 0, "step")
        if summary.steps is not None and not whole:
            done = f"{summary.step or 0:,} of {count(summary.steps, 'step')}"
        sentences = {
            "finished": f"finished: {'all' if summary.steps and whole else 'its time was up after'} {done}",
            "interrupted": f"interrupted after {done}, with a checkpoint",
            "killed": f"killed after {done} or a little later: the folder does not say how it ended",
            "running": f"running: {done} so far",
            "imported": summary.reason,
        }
        sentence = sentences.get(summary.outcome, f"{summary.outcome}: {summary.reason}")
        left_out = "; ".join(filter(None, (summary.left_out, *self.left_out)))
        return one_line(f"{sentence}; left out here: {left_out}" if left_out else sentence)

    @property
    def evaluations(self) -> Sequence[Record]:
        """The lines of the log that hold an evaluation."""
        return evaluations(self.records)

    @property
    def events(self) -> list[tuple[int, str]]:
        """Steps at which something out of the ordinary happened, and what."""
        found = [(entry["from_step"], "resumed from here") for entry in self.environments if entry["from_step"]]
        for record in self.records:
            if "rolled_back_from" in record:
                what = f"rolled back here from step {record['rolled_back_from']}, continuing with other batches"
                found.append((record["step"], one_line(f"{what}: {record.get('reason', 'no reason is given')}")))
            if "damaged" in record:
                what = "the log was damaged when the run was resumed here"
                found.append((record["step"], one_line(f"{what}: {record['damaged']}")))
            if is_number(record.get("skipped_spike")):
                spike = f"{decimal_number(record['skipped_spike'], 1)} standard deviations above the recent mean"
                found.append((record["step"], f"update skipped: the loss was {spike}"))
        return sorted(found)

    @property
    def key_numbers(self) -> list[tuple[str, str, str]]:
        """The results that are known, each as a name, a value and a note."""
        summary, found = self.summary, list[tuple[str, str, str]]()
        best = next((line for line in self.evaluations if line["step"] == summary.best_step), {})
        if summary.val_reward is not None:
            found.append(("best val reward", decimal_number(summary.val_reward), f"at step {summary.best_step:,}"))
        if summary.best_val_loss is not None:
            found.append(
                (
                    "best val loss" if summary.val_reward is None else "val loss",
                    decimal_number(summary.best_val_loss),
                    f"at step {summary.best_step:,}",
                )
            )
            found.append(("bits per byte", decimal_number(summary.val_bpb or 0.0), "at that step"))
        for source, loss, bits in _by_source(best):
            found.append((f"val loss of {source}", decimal_number(loss), f"{decimal_number(bits)} bits per byte"))
        if is_number(best.get("val_perplexity")):
            found.append(("perplexity", grouped_number(best["val_perplexity"]), "at that step"))
        if self.scores:
            results = self.scores[-1].results
            note = f"mean of {count(len(results), 'task')} at step {self.scores[-1].step:,}, guessing is 0"
            found.append(("score", decimal_number(mean_centred(results), 3), note))
        if summary.parameters is not None:
            found.append(("parameters", f"{summary.parameters:,}", ""))
        if summary.tokens:
            found.append(("tokens", f"{summary.tokens:,}", f"in {count(summary.step or 0, 'step')}"))
        if summary.seconds is not None:
            found.append(("training time", duration(summary.seconds), "without evaluations"))
        if summary.tokens_per_second is not None:
            found.append(("tokens/s", f"{summary.tokens_per_second:,.0f}", "on average"))
        for kind in KINDS:
            held = [line[kind] for line in self.timings if is_number(line.get(kind))]
            if held:
                found.append((kind.replace("_", " "), f"{max(held) / 2**20:,.0f} MiB", "peak, at evaluations"))
        return found

    @property
    def settings(self) -> dict[str, list[Setting]]:
        """Every setting that plays a part, under the headings of `tgc train --help`."""
        groups: dict[str, list[Setting]] = {}
        settings = self.config.settings() if self.config else {}
        for name, value in settings.items():
            if unmet_need(SPECS[name], settings) is None:
                setting = Setting(name, _setting_text(value), value == SPECS[name].default)
                groups.setdefault(heading_of(SPECS[name]), []).append(setting)
        return groups

    @property
    def best_checkpoint(self) -> str:
        """The path of the checkpoint at the best step; empty if it is not on disk."""
        step = self.summary.best_step
        return next((str(path) for path in self.checkpoints if step_of(path) == step and not is_temporary(path)), "")

    @property
    def commands(self) -> list[tuple[str, str]]:
        """What can be done with the run, in words and as a command, the most likely first."""
        return commands_of(self.summary, self.config, self.checkpoints, self.best_checkpoint, chats=self.chats)


def read_report(folder: RunFolder) -> Report:
    """Read a report's content. What is missing, damaged or unreadable is left out, and the outcome says so."""
    unread: list[str] = []
    checkpoints = known(lambda: find_checkpoints(folder.checkpoints), [])
    return Report(
        summarize_run(folder.path),
        known(folder.read_config, None),
        known(folder.records, []),
        known(folder.timings, []),
        known(folder.environments, [], say=unread.append),
        known(lambda: list(read_samples(folder, say=unread.append)), [], say=unread.append),
        checkpoints,
        bool(checkpoints and known(lambda: taught_to_chat(checkpoints[-1]), None)),
        known(lambda: read_scores(folder.scores), [], say=unread.append),
        unread,
    )


def environment_text(value: Any) -> str:
    """Return an entry of the environment in one line.

    >>> environment_text(["train", "--data", "my text"]), environment_text([{"library": "openblas", "threads": 2}])
    ("train --data 'my text'", 'library openblas, threads 2')
    """
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {environment_text(part)}" for name, part in value.items() if part is not None)
    if isinstance(value, list):
        words = all(isinstance(part, str) for part in value)
        return as_command(value) if words else "; ".join(map(environment_text, value))
    return str(value)


def _by_source(record: Record) -> Iterator[tuple[str, float, float]]:
    """Yield an evaluation's results on each source of a mixture: name, loss, bits per byte."""
    sources = record.get("sources")
    for name, values in sources.items() if isinstance(sources, dict) else ():
        if isinstance(values, dict) and is_number(values.get("val_loss")) and is_number(values.get("val_bpb")):
            yield name, values["val_loss"], values["val_bpb"]


def _setting_text(value: Any) -> str:
    if value is None or value == UNBOUNDED:
        return "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, tuple):
        return ", ".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)
