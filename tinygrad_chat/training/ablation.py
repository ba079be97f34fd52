"""Ablations: the same training over a grid of settings and several seeds, and what comes of each.

ablations/bigram-tensor-norm-tied/
  ablation.json  what is varied, over which settings and seeds
  results.jsonl  one finished run a line; a second start goes on after the last of them
  runs/          the run of each cell and seed, complete
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinygrad_chat.errors import CheckpointError, ConfigError, UsageError
from tinygrad_chat.training.checkpoint import find_checkpoints
from tinygrad_chat.training.config import TrainingConfig, parse_settings, resolve_config, to_settings
from tinygrad_chat.training.loop import Ended, Event, train
from tinygrad_chat.training.run import Run, resume_run, start_run
from tinygrad_chat.training.run_folder import RunFolder
from tinygrad_chat.training.storage import explained, write_whole

Choices = dict[str, Any]
"""A value for each setting that is varied."""

# Two-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom.
STUDENT_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
NORMAL = 1.96


@dataclass(frozen=True)
class Ablation:
    """Train every combination of the `varied` values with each seed from 1 on, other settings as in `settings`."""

    settings: Mapping[str, Any]
    varied: Mapping[str, Sequence[Any]]
    seeds: int

    def cells(self) -> list[Choices]:
        """Return every combination of the varied values."""
        return [dict(zip(self.varied, values, strict=True)) for values in itertools.product(*self.varied.values())]

    def config(self, choices: Choices, seed: int) -> TrainingConfig:
        """Return the configuration of one run: evaluated at its start and its end, unless settings say otherwise."""
        config = resolve_config({**self.settings, **choices, "seed": seed})
        return config if "eval_every" in self.settings else dataclasses.replace(config, eval_every=config.steps)

    def runs(self) -> list[tuple[Choices, int]]:
        """Return every run: the choices of its cell and its seed."""
        return [(choices, seed) for choices in self.cells() for seed in range(1, self.seeds + 1)]


@dataclass(frozen=True)
class Cell:
    """What came of a cell: final validation losses, their mean and the half-width of its 95 % confidence interval."""

    choices: Choices
    parameters: int
    losses: list[float]

    @property
    def mean(self) -> float:
        """The mean over the seeds, in nats a token."""
        return statistics.fmean(self.losses)

    @property
    def interval(self) -> float | None:
        """Half the width of the mean's 95 % confidence interval by Student's t; None for a single seed."""
        count = len(self.losses)
        if count < 2:
            return None
        t = STUDENT_T[count - 2] if count - 2 < len(STUDENT_T) else NORMAL
        return t * statistics.stdev(self.losses) / count**0.5


def parse_variation(text: str) -> dict[str, list[Any]]:
    """Return what `--vary` asks for: names, each with its values, as in "norm,tied,lr=0.001|0.01".

    Without values a setting takes all its choices. Raises ConfigError for a name without choices and for bad values.
    """
    known = {field.name: field for field in dataclasses.fields(TrainingConfig)}
    varied: dict[str, list[Any]] = {}
    for part in text.split(","):
        name, _, values = part.strip().partition("=")
        name = name.strip().replace("-", "_")
        if name not in known or name == "seed":
            raise ConfigError(f"--vary: expected options of tgc train, such as norm,tied, received {name!r}")
        choices, boolean = known[name].metadata["choices"], str(known[name].type) == "bool"
        if values:
            lines = [f"{name} = {_as_toml(value, choices)}" for value in values.split("|")]
            varied[name] = [parse_settings(line, source=f"--vary {name}")[name] for line in lines]
        elif choices or boolean:
            varied[name] = [True, False] if boolean else list(choices)
        else:
            raise ConfigError(f"--vary {name}: expected values, as in {name}=A|B, received none")
    return varied


def _as_toml(value: str, choices: Sequence[str]) -> str:
    words = {"on": "true", "off": "false"}
    return json.dumps(value.strip()) if choices else words.get(value.strip(), value.strip())


def label(choices: Choices) -> str:
    """Return a cell's name: norm=rmsnorm,tied=off."""
    return ",".join(f"{name}={_shown(value)}" for name, value in choices.items())


def _shown(value: Any) -> str:
    return ("off", "on")[value] if isinstance(value, bool) else str(value)


def folder_of(ablation: Ablation) -> Path:
    """Return where an ablation's results stand unless told otherwise."""
    first = ablation.config(*ablation.runs()[0])
    return Path("ablations") / "-".join([first.model, first.mode, *ablation.varied])


def run_ablation(
    ablation: Ablation, folder: Path, *, should_stop: Callable[[], bool] = lambda: False, confirmed: bool = False
) -> Iterator[tuple[Run, Event]]:
    """Train all that is not finished yet, and yield what happens in each run.

    Raises UsageError where `folder` holds another ablation, and whatever `start_run` and training raise.
    """
    for choices, seed in ablation.runs():
        ablation.config(choices, seed)  # what cannot work is said before anything is trained
    _claim(ablation, folder)
    done = {(row["cell"], row["seed"]) for row in read_rows(folder)}
    for choices, seed in ablation.runs():
        if (label(choices), seed) in done:
            continue
        path = folder / "runs" / f"{label(choices)},seed={seed}"
        run = _open_run(ablation.config(choices, seed), path, confirmed)
        for event in train(run, should_stop=should_stop):
            yield run, event
            if isinstance(event, Ended):
                if event.interrupted:
                    return
                _append_row(folder, run, choices, seed)


def collect(ablation: Ablation, folder: Path) -> list[Cell]:
    """Return what came of each cell that has a finished run, best first."""
    rows = read_rows(folder)
    cells = []
    for choices in ablation.cells():
        mine = [row for row in rows if row["cell"] == label(choices)]
        if mine:
            cells.append(Cell(choices, mine[0]["parameters"], [row["val_loss"] for row in mine]))
    return sorted(cells, key=lambda cell: cell.mean)


def _claim(ablation: Ablation, folder: Path) -> None:
    description = {
        "varied": {name: list(values) for name, values in ablation.varied.items()},
        "seeds": ablation.seeds,
        "settings": {**to_settings(ablation.config(*ablation.runs()[0])), **dict.fromkeys([*ablation.varied, "seed"])},
    }
    path = folder / "ablation.json"
    if path.exists():
        before = json.loads(path.read_bytes())
        if {**before, "seeds": 0} != {**json.loads(json.dumps(description)), "seeds": 0}:
            raise UsageError(f"--out {folder}: holds an ablation with other settings; choose another folder")
    with explained(folder):
        (folder / "runs").mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(description, indent=1).encode())


def _open_run(config: TrainingConfig, path: Path, confirmed: bool) -> Run:
    if find_checkpoints(RunFolder(path).checkpoints):
        try:
            return resume_run(path, {})
        except CheckpointError as error:
            raise CheckpointError(f"{error}; or remove {path} to train it anew") from error
    return start_run(config, path, confirmed=confirmed)


def _append_row(folder: Path, run: Run, choices: Choices, seed: int) -> None:
    last = json.loads(run.folder.log.read_bytes().splitlines()[-1])
    row = {
        "cell": label(choices),
        **choices,
        "seed": seed,
        "parameters": run.model.parameters().size,
        "steps": run.step,
        "val_loss": last["val_loss"],
        "val_bpb": last["val_bpb"],
        "best_val_loss": run.best_loss,
        "seconds": round(run.seconds, 3),
    }
    with explained(folder), (folder / "results.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the finished runs of the ablation at `folder`, in the order in which they ended."""
    path = folder / "results.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]
