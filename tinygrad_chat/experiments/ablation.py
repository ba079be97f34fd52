"""The grid of an ablation: the same training over combinations of settings and several seeds."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinygrad_chat.config.files import parse_settings
from tinygrad_chat.config.record import SPECS, TrainingConfig
from tinygrad_chat.errors import ConfigError, UsageError
from tinygrad_chat.formatting import count, short_repr
from tinygrad_chat.option import by_every_name, refuse_ineffective, unmet_need
from tinygrad_chat.training.facts import resolve_with_facts

Choices = dict[str, Any]
"""A value for each setting that is varied."""

MAX_RUNS = 10_000


@dataclass(frozen=True)
class Ablation:
    """A grid: every combination of the `varied` values with each seed from 1 to `seeds`, other settings as in
    `settings`, on top of the `base` of a preset or file."""

    settings: Mapping[str, Any]
    varied: Mapping[str, Sequence[Any]]
    seeds: int
    base: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        cells = math.prod(map(len, self.varied.values()))
        if cells * self.seeds > MAX_RUNS:
            raise UsageError(
                f"--seeds: expected at most {MAX_RUNS:,} runs in all, received {count(cells, 'cell')} with "
                f"{count(self.seeds, 'seed')} each; vary fewer settings, or choose fewer --seeds"
            )

    def cells(self) -> list[Choices]:
        """Return every combination of the varied values."""
        return [dict(zip(self.varied, values, strict=True)) for values in itertools.product(*self.varied.values())]

    def config(self, choices: Choices, seed: int) -> TrainingConfig:
        """Return the configuration of one run, evaluated only at its start and end unless settings say otherwise."""
        return self._resolved[label(choices)].replace(seed=seed)

    @functools.cached_property
    def _resolved(self) -> dict[str, TrainingConfig]:
        """The configuration of each cell, cached: resolving --minutes may measure the machine's speed."""
        shared = self.settings.keys() - self.varied.keys()
        resolved = {}
        for choices in self.cells():
            settings = {**self.settings, **choices}
            config, _ = resolve_with_facts(settings, base=self.base, may_be_ineffective=shared)
            given = "eval_every" in {**self.base, **settings}
            resolved[label(choices)] = config if given else config.replace(eval_every=config.schedule.steps)
        _refuse_ineffective_everywhere(shared, [config.settings() for config in resolved.values()])
        return resolved

    def runs(self) -> list[tuple[Choices, int]]:
        """Return every run: the choices of its cell and its seed."""
        return [(choices, seed) for choices in self.cells() for seed in range(1, self.seeds + 1)]


def _refuse_ineffective_everywhere(shared: Iterable[str], cells: Sequence[Mapping[str, Any]]) -> None:
    """Raise ConfigError for a shared setting that has no effect in any cell."""
    never = [name for name in shared if all(unmet_need(SPECS[name], settings) for settings in cells)]
    refuse_ineffective(SPECS, sorted(never), cells[0])


def parse_variation(text: str) -> dict[str, list[Any]]:
    """Parse `--vary`: names, each with its values, as in "norm,tied,lr=0.001|0.01".

    A name without values takes all its choices. Raises ConfigError for one without choices and for bad values.
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
    """Format a value for display: on and off for booleans, numbers to six digits."""
    if isinstance(value, bool):
        return ("off", "on")[value]
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def folder_of(ablation: Ablation) -> Path:
    """Return the default folder of an ablation."""
    first = ablation.config(*ablation.runs()[0])
    return Path("ablations") / "-".join([first.recipe.model, first.compute.mode, *ablation.varied])
