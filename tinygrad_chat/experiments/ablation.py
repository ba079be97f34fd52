"""Ablations: the same training over a grid of settings and several seeds, and what comes of each.

ablations/bigram-tensor-norm-tied/
  ablation.json  the settings of each cell
  results.jsonl  one finished run a line; a second start goes on after the last of them
  runs/          the run of each cell and seed, complete
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from tinygrad_chat.config.files import parse_settings
from tinygrad_chat.config.record import SPECS, TrainingConfig, from_saved
from tinygrad_chat.errors import CheckpointError, ConfigError, DivergedError, FormatError, UsageError
from tinygrad_chat.files import exclusive_lock, explained, folder_is_there, is_there, read_plain, write_atomic
from tinygrad_chat.formatting import count, short_repr
from tinygrad_chat.option import by_every_name, idle, refuse_idle
from tinygrad_chat.runs.checkpoint import find_checkpoints
from tinygrad_chat.runs.consent import note_data
from tinygrad_chat.runs.folder import RunFolder
from tinygrad_chat.schema import Amount, Count, parse_lines, read_json
from tinygrad_chat.training.events import Ended, Event
from tinygrad_chat.training.facts import resolve_with_facts
from tinygrad_chat.training.loop import train
from tinygrad_chat.training.run import Run, resume_run, start_run

Choices = dict[str, Any]
"""A value for each setting that is varied."""

MOST_RUNS = 10_000
LARGEST_RESULTS = 64 << 20  # bytes, of so many runs


class Row(TypedDict):
    """A line of results.jsonl: a finished run; beside this, what was chosen for its cell."""

    cell: str
    seed: Count
    parameters: Count
    steps: Count
    data_sha256: str
    diverged: bool
    val_loss: float | None
    val_bpb: float | None
    best_val_loss: Amount | None
    seconds: Amount


class Claim(TypedDict):
    """What ablation.json holds: the settings of each cell."""

    settings: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Ablation:
    """Train every combination of the `varied` values with each seed from 1 on, other settings as in `settings`, over
    the `base` of a preset or file."""

    settings: Mapping[str, Any]
    varied: Mapping[str, Sequence[Any]]
    seeds: int
    base: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        cells = math.prod(map(len, self.varied.values()))
        if cells * self.seeds > MOST_RUNS:
            raise UsageError(
                f"--seeds: expected at most {MOST_RUNS:,} runs in all, received {count(cells, 'cell')} with "
                f"{count(self.seeds, 'seed')} each; vary fewer settings, or choose fewer --seeds"
            )

    def cells(self) -> list[Choices]:
        """Return every combination of the varied values."""
        return [dict(zip(self.varied, values, strict=True)) for values in itertools.product(*self.varied.values())]

    def config(self, choices: Choices, seed: int) -> TrainingConfig:
        """Return the configuration of one run: evaluated at its start and its end, unless settings say otherwise."""
        return self._resolved[label(choices)].replace(seed=seed)

    @functools.cached_property
    def _resolved(self) -> dict[str, TrainingConfig]:
        """The configuration of each cell, found once: for minutes, the machine's speed is measured for that."""
        shared = self.settings.keys() - self.varied.keys()
        resolved = {}
        for choices in self.cells():
            settings = {**self.settings, **choices}
            config, _ = resolve_with_facts(settings, base=self.base, may_be_idle=shared)
            given = "eval_every" in {**self.base, **settings}
            resolved[label(choices)] = config if given else config.replace(eval_every=config.schedule.steps)
        _refuse_idle_everywhere(shared, [config.settings() for config in resolved.values()])
        return resolved

    def runs(self) -> list[tuple[Choices, int]]:
        """Return every run: the choices of its cell and its seed."""
        return [(choices, seed) for choices in self.cells() for seed in range(1, self.seeds + 1)]


def _refuse_idle_everywhere(shared: Iterable[str], cells: Sequence[Mapping[str, Any]]) -> None:
    """Raise ConfigError for a shared setting that plays a part in no cell."""
    never = [name for name in shared if all(idle(SPECS[name], settings) for settings in cells)]
    refuse_idle(SPECS, sorted(never), cells[0])


def parse_variation(text: str) -> dict[str, list[Any]]:
    """Return what `--vary` asks for: names, each with its values, as in "norm,tied,lr=0.001|0.01".

    Without values a setting takes all its choices. Raises ConfigError for a name without choices and for bad values.
    """
    varied: dict[str, list[Any]] = {}
    for part in text.split(","):
        name, _, values = part.strip().partition("=")
        name = name.strip().replace("-", "_")
        spec = by_every_name(SPECS).get(name)
        if spec is None or name == "seed":
            raise ConfigError(
                f"--vary: expected options of tgc train, as in norm,tied or lr=0.001|0.01, received {name!r}"
            )
        name, choices, kind = spec.name, spec.choices, spec.kind
        if values:
            found = [_parsed(name, value, kind) for value in values.split("|")]
            varied[name] = list(dict.fromkeys(found))  # a value given twice is one cell
        elif choices or kind is bool:
            varied[name] = list(choices) or [True, False]
        else:
            raise ConfigError(f"--vary {name}: expected values, as in {name}=A|B, received none")
    return varied


def _parsed(name: str, value: str, kind: type) -> Any:
    words, settings = {"on": "true", "off": "false"}, {name: value.strip()}
    if kind is not str:
        settings = parse_settings(f"{name} = {words.get(value.strip(), value.strip())}", source=f"--vary {name}")
    if settings.keys() != {name}:
        raise ConfigError(f"--vary {name}: expected a value, received {short_repr(value)}")
    SPECS[name].check(settings[name])
    return settings[name]


def label(choices: Choices) -> str:
    """Return a cell's name: norm=rmsnorm,tied=off."""
    return ",".join(f"{name}={shown(value)}" for name, value in choices.items())


def shown(value: Any) -> str:
    """Return how a value is written for people: on and off for booleans, numbers to six digits."""
    if isinstance(value, bool):
        return ("off", "on")[value]
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def folder_of(ablation: Ablation) -> Path:
    """Return where an ablation's results stand unless told otherwise."""
    first = ablation.config(*ablation.runs()[0])
    return Path("ablations") / "-".join([first.recipe.model, first.compute.mode, *ablation.varied])


def run_ablation(
    ablation: Ablation, folder: Path, *, should_stop: Callable[[], bool] = lambda: False, confirmed: bool = False
) -> Iterator[tuple[Run, Event]]:
    """Train all that is not finished yet, and yield what happens in each run. One that diverges is a result too.

    Raises UsageError where `folder` holds another ablation, and whatever `start_run` and training raise.
    """
    for choices, seed in ablation.runs():
        ablation.config(choices, seed)  # what cannot work is said before anything is trained
    _claim(ablation, folder)
    with exclusive_lock(folder):
        yield from _run_all(ablation, folder, should_stop, confirmed)


def _run_all(
    ablation: Ablation, folder: Path, should_stop: Callable[[], bool], confirmed: bool
) -> Iterator[tuple[Run, Event]]:
    done = {(row["cell"], row["seed"]) for row in read_rows(folder)}
    for choices, seed in ablation.runs():
        if (label(choices), seed) in done:
            continue
        path = folder / "runs" / f"{label(choices)},seed={seed}".replace("/", "_")
        run = _open_run(ablation.config(choices, seed), path, confirmed)
        diverged = False
        try:
            for event in train(run, should_stop=should_stop):
                yield run, event
                if isinstance(event, Ended) and event.interrupted:
                    return
        except DivergedError:
            diverged = True
            yield run, Ended(run.progress.step, interrupted=False)
        _append_row(folder, run, choices, seed, diverged)


def _claim(ablation: Ablation, folder: Path) -> None:
    """Write down what the folder is for, or make sure that it is for this."""
    settings = {label(choices): ablation.config(choices, 1).used_settings() for choices in ablation.cells()}
    path = folder / "ablation.json"
    with explained(path, "read"):
        saved = read_json(path, Claim, most=LARGEST_RESULTS)["settings"] if is_there(path) else settings
    before = {cell: from_saved(each, source=str(path)).used_settings() for cell, each in saved.items()}
    if before != settings:
        names = {"vary"}
        if before.keys() == settings.keys():
            pairs = [
                (before[cell].get(name), name, value) for cell in settings for name, value in settings[cell].items()
            ]
            names = {name for had, name, value in pairs if had != value} or names
        raise UsageError(
            f"{folder}: holds an ablation with other settings ({', '.join(sorted(names))}); "
            "choose another folder with --out"
        )
    with explained(folder):
        folder_is_there(folder / "runs")
        (folder / "runs").mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps({"settings": settings}, indent=1).encode())


def _open_run(config: TrainingConfig, path: Path, confirmed: bool) -> Run:
    with explained(path, "read"):
        folder_is_there(path)
    if find_checkpoints(RunFolder(path).checkpoints):
        note_data(path, config.data.source)  # which today's user has named
        with contextlib.suppress(CheckpointError):  # damaged: it is trained anew
            return resume_run(path, {})
    shutil.rmtree(path, ignore_errors=True)  # what a run that was killed at its start has left
    return start_run(config, path, confirmed=confirmed)


def _append_row(folder: Path, run: Run, choices: Choices, seed: int, diverged: bool) -> None:
    last = {} if diverged else run.folder.records()[-1]
    row = {
        "cell": label(choices),
        **choices,
        "seed": seed,
        "parameters": run.model.parameters().size,
        "steps": run.progress.step,
        "data_sha256": run.dataset.sha256,
        "diverged": diverged,
        "val_loss": last.get("val_loss"),
        "val_bpb": last.get("val_bpb"),
        "best_val_loss": run.progress.best_loss,
        "seconds": round(run.progress.seconds, 3),
    }
    rows = [*read_rows(folder), row]
    if "data" not in choices and rows[0]["data_sha256"] != row["data_sha256"]:
        raise UsageError(
            f"--data {run.config.data.name}: has changed since the ablation began; start one in another folder"
        )
    write_atomic(folder / "results.jsonl", "".join(json.dumps(line) + "\n" for line in rows).encode())


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the finished runs of the ablation at `folder`, in the order in which they ended.

    A line that holds no such run, perhaps as a crash cut it short, is left out: its run is made again.
    """
    path = folder / "results.jsonl"
    with explained(path, "read"):
        lines = read_plain(path, most=LARGEST_RESULTS).splitlines() if is_there(path) else []
    rows = [row for _, row in parse_lines(lines, Row, source=str(path)) if not isinstance(row, FormatError)]
    return [{**row} for row in rows if row["diverged"] or None not in (row["val_loss"], row["val_bpb"])]
