"""`TrainingConfig`: all groups of a run's options in one frozen record, and its forms in files.

In a file the options are in tables, one per group, as in `[optimizer] lr = 0.004`; or flat, by the names of their
flags, as older versions wrote them, and as is easier in a short file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tinygrad_chat.config.compute import TrainingComputeOptions
from tinygrad_chat.config.groups import (
    DataOptions,
    GuardOptions,
    OptimizerOptions,
    RecipeOptions,
    RunOptions,
    ScheduleOptions,
)
from tinygrad_chat.config.objective import ObjectiveOptions
from tinygrad_chat.errors import ConfigError
from tinygrad_chat.models.options import ModelOptions
from tinygrad_chat.option import OptionSpec, checked_settings, specs_of, unknown_key, unmet_need
from tinygrad_chat.text.split import END

GROUPS: dict[str, type[Any]] = {
    "recipe": RecipeOptions,
    "model": ModelOptions,
    "data": DataOptions,
    "optimizer": OptimizerOptions,
    "schedule": ScheduleOptions,
    "compute": TrainingComputeOptions,
    "run": RunOptions,
    "guards": GuardOptions,
    "objective": ObjectiveOptions,
}
"""The record's attributes and the tables of a file."""

SPECS: dict[str, OptionSpec] = specs_of(*GROUPS.values())
"""Every option of a run by its flat name."""

_TABLE_OF = {group: table for table, group in GROUPS.items()}

FORMERLY_IN: dict[str, tuple[str, ...]] = {"data": ("grad_accumulation", "recompute", "graph", "autotune")}
"""Options that files of older versions have in another table, under the name of that table."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Every setting of a run: `config.optimizer.lr`, or flat, `config.settings()["lr"]`."""

    recipe: RecipeOptions = field(default_factory=RecipeOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    data: DataOptions = field(default_factory=DataOptions)
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    schedule: ScheduleOptions = field(default_factory=ScheduleOptions)
    compute: TrainingComputeOptions = field(default_factory=TrainingComputeOptions)
    run: RunOptions = field(default_factory=RunOptions)
    guards: GuardOptions = field(default_factory=GuardOptions)
    objective: ObjectiveOptions = field(default_factory=ObjectiveOptions)

    def __post_init__(self) -> None:
        if self.compute.mode == "scalar" and self.model.dropout:
            raise ConfigError(f"--dropout: expected 0 in scalar mode, received {self.model.dropout}")
        rows, micro_batches = self.data.batch_size, self.compute.grad_accumulation
        if rows % micro_batches:
            expected = f"a divisor of --batch-size {rows}"
            raise ConfigError(f"--grad-accumulation: expected {expected}, received {micro_batches}")
        if self.objective.by_reward:
            self._expect_groups()
        if self.schedule.min_lr > self.optimizer.lr:
            raise ConfigError(f"--min-lr: expected at most --lr {self.optimizer.lr}, received {self.schedule.min_lr}")

    def _expect_groups(self) -> None:
        rows, group = self.data.batch_size, self.objective.group_size
        if self.recipe.start_from is None:
            raise ConfigError("--objective grpo: has no effect without --from, a run that was taught to chat")
        if self.compute.mode == "scalar":
            raise ConfigError(
                "--mode scalar: has no effect with --objective grpo: to answer the problems of a step one number at a "
                "time would take hours; add --mode tensor"
            )
        if rows % group:
            raise ConfigError(f"--batch-size: expected a multiple of --group-size {group}, received {rows}")

    @classmethod
    def of(cls, **settings: Any) -> TrainingConfig:
        """Make a configuration from settings by their flat names; all others have their defaults."""
        return cls().replace(**settings)

    def replace(self, **settings: Any) -> TrainingConfig:
        """Return a copy of the configuration with some settings changed, by their flat names."""
        changes: dict[str, dict[str, Any]] = {}
        for name, value in settings.items():
            spec = SPECS[name]
            changes.setdefault(_TABLE_OF[spec.group], {})[spec.field] = value
        groups = {table: dataclasses.replace(getattr(self, table), **part) for table, part in changes.items()}
        return dataclasses.replace(self, **groups)

    def settings(self) -> dict[str, Any]:
        """Return every setting by its flat name."""
        return {name: getattr(getattr(self, _TABLE_OF[spec.group]), spec.field) for name, spec in SPECS.items()}

    @property
    def tokens_per_step(self) -> int:
        """The tokens of a training step."""
        return self.data.batch_size * self.model.context

    @property
    def micro_batch(self) -> int:
        """The rows of a training step whose gradient is computed together."""
        return self.data.batch_size // self.compute.grad_accumulation

    def evaluates_at(self, step: int) -> bool:
        """Return whether an evaluation is due after `step` updates, whether or not training ends there."""
        return step % self.run.eval_every == 0

    def saves_at(self, step: int) -> bool:
        """Return whether a checkpoint is due after `step` updates, whether or not training ends there."""
        every = self.run.checkpoint_every
        return self.evaluates_at(step) or (every is not None and step % every == 0)

    def used_settings(self) -> dict[str, Any]:
        """Return the settings that have an effect and are not None: enough to rebuild the configuration."""
        settings = self.settings()
        return {
            name: value
            for name, value in settings.items()
            if value is not None and unmet_need(SPECS[name], settings) is None
        }

    def tables(self) -> dict[str, dict[str, Any]]:
        """Return the used settings as the tables of a TOML or JSON file."""
        tables: dict[str, dict[str, Any]] = {table: {} for table in GROUPS}
        for name, value in self.used_settings().items():
            tables[_TABLE_OF[SPECS[name].group]][SPECS[name].field] = value
        return {table: part for table, part in tables.items() if part}


def heading_of(spec: OptionSpec) -> str:
    """Return the heading of an option's group, for display."""
    return _TABLE_OF[spec.group].capitalize()


def flat_settings(content: Mapping[str, Any], *, source: str) -> dict[str, Any]:
    """Return the settings in a file's `content`, in tables or flat, by their flat names, converted to their types.

    Raises ConfigError, naming `source` and the key, for an unknown key or a value of the wrong type.
    """
    flat: dict[str, Any] = {}
    for key, value in content.items():
        found = (
            _table(key, value, source)
            if isinstance(value, dict) or _is_array_of_tables(value)
            else checked_settings(SPECS, {key: value}, source=source)
        )
        twice = flat.keys() & found.keys()
        if twice:
            raise ConfigError(f"{source}: {min(twice)} is given twice")
        flat |= found
    return flat


def _is_array_of_tables(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(entry, dict) for entry in value)


def _table(table: str, content: Any, source: str) -> dict[str, Any]:
    if table not in GROUPS:
        raise ConfigError(f"{source}: expected one of the tables {', '.join(GROUPS)}, received [{table}]")
    if not isinstance(content, dict):
        raise ConfigError(f"{source}: expected a table [{table}], received an array of them, [[{table}]]")
    fields = {spec.field: spec for spec in specs_of(GROUPS[table]).values()}
    moved = {name: SPECS[name] for name in FORMERLY_IN.get(table, ())}
    flat = {}
    for key, value in content.items():
        spec = {**moved, **fields}.get(key.replace("-", "_"))
        if spec is None:
            flag = specs_of(GROUPS[table]).get(key.replace("-", "_"))  # the name that it has in a flat file
            remedy = f"did you mean {flag.field}?" if flag else f"expected one of {', '.join(fields)}"
            raise unknown_key(f"{source}: [{table}]", key, () if flag else fields, remedy=remedy)
        flat[spec.name] = spec.convert(value, f"{source}: [{table}] {key}")
    return flat


def from_saved(content: Mapping[str, Any], *, source: str) -> TrainingConfig:
    """Return the configuration that a run saved, as this version's tables or flat by an older version.

    Raises ConfigError, naming `source`, if it is invalid.
    """
    settings = {**OF_OLDER_VERSIONS, **flat_settings(content, source=source)}
    recipe = RECIPES.get(settings.get("model", RecipeOptions.model), {})
    try:
        return TrainingConfig.of(**{**settings, **recipe})
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error


OF_OLDER_VERSIONS: dict[str, Any] = {"eval_tokens": 0, "split": END}
"""The behaviour of runs by older versions, whose configuration does not state it."""

RECIPES: dict[str, dict[str, Any]] = {"bigram": {"layers": 0, "positions": "none"}}
"""Settings that define a model and override all choices: a bigram is a GPT without blocks and positions."""
