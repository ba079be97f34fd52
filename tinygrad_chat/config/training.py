"""What a user can choose about a run, and how the choices combine.

Later layers win: the defaults below, what suits the model, a preset or TOML file, command-line flags.
Standard library only, so that `tgc --help` stays fast.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from tinygrad_chat.errors import ConfigError
from tinygrad_chat.models.options import ModelOptions
from tinygrad_chat.option import checked_settings, flag_of, option, validate, validate_settings


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(ModelOptions):
    """A run's every setting: the model's shape and how it is trained. Defaults and help texts stand here only."""

    model: str = option("mini-gpt", "which model", choices=("bigram", "mini-gpt", "nanochat"), flags=("--model-kind",))
    depth: int | None = option(
        None,
        "layers, and all other settings follow from them; by default what --minutes allow, or 4",
        minimum=1,
        group="nanochat's dial",
    )
    mode: str = option(
        "tensor", "which engine: arrays, or one number at a time", choices=("tensor", "scalar"), fixed=False
    )
    backend: str = option("auto", "where arrays live", choices=("auto", "numpy", "cupy"), group="Run", fixed=False)
    data: str = option(
        "pydoc", "text file, folder, JSONL file, or pydoc, shakespeare, names", group="Data", fixed=False
    )
    text_field: str = option("text", "key of a JSONL row that holds its text", group="Data")
    tokenizer: str = option("characters", "what a token is", choices=("characters", "bytes"), group="Data")
    steps: int = option(2000, "updates of the weights", minimum=1, group="Training", fixed=False)
    minutes: float | None = option(
        None, "train this long, evaluations not counted; with --steps, at most", above=0, group="Training", fixed=False
    )
    tokens_per_parameter: float | None = option(
        None,
        "length of training, where --steps says nothing (default 12)",
        above=0,
        group="nanochat's dial",
    )
    batch_size: int = option(12, "windows of text a step", minimum=1, group="Training")
    accumulate: int = option(
        1,
        "parts that a step's batch is computed in: less memory, the same gradient",
        minimum=1,
        group="Training",
        fixed=False,
    )
    optimizer: str = option(
        "adamw",
        "update rule; muon is for matrices, with AdamW for the rest",
        choices=("adamw", "muon", "sgd"),
        group="Training",
    )
    lr: float = option(4e-3, "highest learning rate, of Muon's matrices with muon", above=0, group="Training")
    embedding_lr: float | None = option(
        None,
        "beside Muon, of embeddings; by default 15 --lr, or less where they begin smaller",
        above=0,
        group="Training",
    )
    head_lr: float | None = option(None, "beside Muon, of the head; by default 0.4 --lr", above=0, group="Training")
    scalar_lr: float | None = option(None, "beside Muon, of scales; by default 25 --lr", above=0, group="Training")
    min_lr: float = option(0.0, "learning rate of the last step", minimum=0, group="Training")
    lr_schedule: str = option(
        "linear",
        "how the learning rate falls",
        choices=("linear", "1-sqrt", "cosine", "constant", "nanochat"),
        group="Training",
    )
    warmup: int = option(100, "steps of rising learning rate; of short runs a tenth", minimum=0, group="Training")
    warmdown: float = option(1.0, "share of the remaining steps over which it falls", above=0, group="Training")
    weight_decay: float = option(0.1, "AdamW's, or Muon's, pull of matrices towards 0", minimum=0, group="Training")
    beta1: float = option(0.9, "AdamW's memory of the gradient", minimum=0, below=1, group="Training")
    beta2: float = option(0.99, "AdamW's memory of its square", minimum=0, below=1, group="Training")
    momentum: float = option(0.9, "SGD's memory of the gradient", minimum=0, below=1, group="Training")
    clip: float = option(1.0, "longest gradient, others are scaled down; 0: any", minimum=0, group="Training")
    kernels: str = option(
        "auto",
        "fast forms of ops: the fastest installed, or one kind",
        choices=("auto", "cuda", "numba", "numpy", "reference"),
        group="Run",
        fixed=False,
    )
    dtype: str = option(
        "auto",
        "precision of activations and products; weights are kept, and their gradients added, in float32",
        choices=("auto", "float32", "tf32", "bfloat16"),
        group="Run",
        fixed=False,
    )
    threads: int | None = option(
        None, "processor threads; by default one for each core", minimum=1, group="Run", fixed=False
    )
    seed: int = option(1, "decides initial weights, batches, dropout and samples", minimum=0, group="Run")
    eval_every: int = option(250, "steps between evaluations", minimum=1, group="Run", fixed=False)
    eval_tokens: int | None = option(
        None, "held-out tokens to evaluate on (default all)", minimum=2, group="Run", fixed=False
    )
    checkpoint_every: int | None = option(
        None, "steps between checkpoints, beside those before evaluations", minimum=1, group="Run", fixed=False
    )
    keep: int = option(2, "newest checkpoints that stay, beside the best", minimum=1, group="Run", fixed=False)
    log_every: int = option(10, "steps between lines of the log", minimum=1, group="Run", fixed=False)

    track: str | None = option(
        None, "send the log to a tracker, too", choices=("tensorboard", "trackio", "wandb"), group="Run", fixed=False
    )
    on_nan: str = option(
        "stop", "what to do where the loss is no number", choices=("stop", "rollback"), group="Guards", fixed=False
    )
    skip_spikes: float | None = option(
        None,
        "skip an update whose loss lies this many standard deviations above the last 50",
        above=0,
        group="Guards",
        fixed=False,
    )
    max_memory_growth: float = option(
        0.5, "stop when memory has grown by this share between evaluations", above=0, group="Guards", fixed=False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        validate(self)
        if self.batch_size % self.accumulate:
            raise ConfigError(
                f"--accumulate: expected a divisor of --batch-size {self.batch_size}, received {self.accumulate}"
            )
        if self.warmdown > 1:
            raise ConfigError(f"--warmdown: expected a share of at most 1, received {self.warmdown}")
        if self.mode == "scalar" and self.backend == "cupy":
            raise ConfigError("--mode scalar: expected --backend numpy or auto, received cupy: Values live in Python")
        if self.mode == "scalar" and self.dtype not in ("auto", "float32"):
            raise ConfigError(
                f"--dtype: expected auto in scalar mode, received {self.dtype}: Values are Python's floats"
            )
        if self.mode == "scalar" and self.dropout:
            raise ConfigError(f"--dropout: expected 0 in scalar mode, received {self.dropout}")
        for name in ("embedding_lr", "head_lr", "scalar_lr"):
            if getattr(self, name) is not None and self.optimizer != "muon":
                raise ConfigError(f"{flag_of(name)}: expected --optimizer muon, received {self.optimizer}")
        if self.model != "nanochat" and (self.depth or self.tokens_per_parameter):
            name = "depth" if self.depth else "tokens_per_parameter"
            raise ConfigError(f"{flag_of(name)}: expected --model nanochat, received {self.model}")
        if self.min_lr > self.lr:
            raise ConfigError(f"--min-lr: expected at most --lr {self.lr}, received {self.min_lr}")


UNBOUNDED = 10**9
"""The steps of a run that only its minutes end."""

DEFAULTS_FOR: dict[str, dict[str, Any]] = {
    "bigram": {"lr": 0.02, "weight_decay": 0.0, "norm": "none", "tied": False},  # a table of logits, of rank `width`
    "muon": {"lr": 0.02},
    "scalar": {  # small enough to watch
        "layers": 1,
        "heads": 4,
        "width": 16,
        "context": 8,
        "batch_size": 1,
        "steps": 300,
        "warmup": 20,
        "lr": 0.01,
        "eval_every": 100,
        "eval_tokens": 512,
    },
}
"""What differs from the defaults for a model, a mode, an optimiser; for nanochat there is the dial, in dial.py."""


RATES_OF_VALUES = {"embedding_lr": 0.15, "head_lr": 0.004, "scalar_lr": 0.25, "weight_decay": 0.1}
"""For nanochat in scalar mode: its laws are not made for eight tokens a step."""


def rates_beside_muon(rate: float, initialisation: str) -> dict[str, float]:
    """Return the other groups' learning rates where they were not chosen: in nanochat's proportions to Muon's.

    That of embeddings is in proportion to how large they begin, too: nanochat's at 0.8, others at 0.02.
    """
    size = 1.0 if initialisation == "nanochat" else 0.02 / 0.8
    return {"embedding_lr": 15.0 * size * rate, "head_lr": 0.4 * rate, "scalar_lr": 25.0 * rate}


def resolve_config(
    flags: Mapping[str, Any], config_file: str | None = None, *, progress: Callable[[str, int, int], None] | None = None
) -> TrainingConfig:
    """Combine the layers into one configuration. `config_file` is a TOML file or the name of a shipped preset.

    nanochat's settings depend on the vocabulary: for them the corpus is read, and `progress` told of a download.
    Raises ConfigError for an unknown key, a value out of range or a file that cannot be read.
    """
    chosen = {**(read_settings(config_file) if config_file else {}), **flags}
    if "steps" in flags and "warmup" in chosen.keys() - flags.keys():
        chosen["warmup"] = min(chosen["warmup"], flags["steps"] // 10)  # a file's, for runs of another length
    validate_settings(TrainingConfig, chosen)
    suiting: dict[str, Any] = {"steps": UNBOUNDED} if "minutes" in chosen else {}
    for name in ("mode", "model", "optimizer"):
        suiting = {**DEFAULTS_FOR.get(chosen.get(name, getattr(TrainingConfig, name)), {}), **suiting}
    if chosen.get("model") == "nanochat":
        from tinygrad_chat.config.scaling_laws import follow_the_dial

        small = {**DEFAULTS_FOR["scalar"], **RATES_OF_VALUES} if chosen.get("mode") == "scalar" else {}
        suiting = {**suiting, **follow_the_dial({**small, **chosen}, progress=progress), **small}
    settings = {**suiting, **chosen}
    if settings.get("optimizer") == "muon":
        initialisation = settings.get("initialisation", TrainingConfig.initialisation)
        suiting = {**rates_beside_muon(settings["lr"], initialisation), **suiting}
    steps = chosen.get("steps", suiting.get("steps", TrainingConfig.steps))
    suiting["warmup"] = min(suiting.get("warmup", TrainingConfig.warmup), steps // 10)  # short runs fall too
    config = TrainingConfig(**{**suiting, **chosen})
    if config.warmup > config.steps:
        raise ConfigError(f"--warmup: expected at most --steps {config.steps}, received {config.warmup}")
    return config


def change_config(config: TrainingConfig, flags: Mapping[str, Any]) -> TrainingConfig:
    """Return a run's configuration with what a resumed run may change. Raises ConfigError for the rest."""
    for field in dataclasses.fields(config):
        name = field.name
        if name in flags and field.metadata["fixed"] and flags[name] != getattr(config, name):
            raise ConfigError(
                f"{flag_of(name)}: the run to resume has {getattr(config, name)}, received {flags[name]}; "
                "leave it out, or start a new run"
            )
    steps = flags.get("steps", config.steps)
    return dataclasses.replace(config, **{"warmup": min(config.warmup, steps), **flags})


def preset_names() -> list[str]:
    """Return the names of the shipped presets."""
    folder = resources.files("tinygrad_chat.config") / "presets"
    return sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml"))


def read_settings(name: str) -> dict[str, Any]:
    """Return the checked settings of a TOML file or, where there is no such file, of the preset `name`."""
    try:
        text = Path(name).read_text(encoding="utf-8-sig")  # Notepad begins a file with a byte-order mark
    except (OSError, UnicodeDecodeError) as error:
        if name not in preset_names():
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(
                f"--config {name}: expected a TOML file or one of the presets {', '.join(preset_names())} ({reason})"
            ) from error
        text = (resources.files("tinygrad_chat.config") / "presets" / f"{name}.toml").read_text(encoding="utf-8")
    return parse_settings(text, source=f"--config {name}")


def parse_settings(text: str, *, source: str) -> dict[str, Any]:
    """Return the settings that TOML `text` holds. Raises ConfigError, naming `source`, where it is no such TOML."""
    try:
        settings = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source}: not valid TOML ({error})") from error
    return checked_settings(TrainingConfig, settings, source=source)


def to_settings(config: TrainingConfig) -> dict[str, Any]:
    """Return every setting that is not None: what TOML can hold, and all that it takes to build `config` again."""
    return {name: value for name, value in dataclasses.asdict(config).items() if value is not None}
