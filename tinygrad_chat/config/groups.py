"""The options of a run, in groups: frozen dataclasses with every default and help text.

The others are in compute.py, objective.py and models/options.py. Standard library only, so that `tgc --help` stays
fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinygrad_chat.errors import ConfigError
from tinygrad_chat.formatting import short_list
from tinygrad_chat.option import needs, option, validate
from tinygrad_chat.text.split import AUTO, DOCUMENTS, END

OWN = "own"
"""A user's own model, written in Python: tinygrad_chat.train(..., model=...)."""

UNBOUNDED = 10**9
"""The number of steps of a run that is limited only by --minutes."""


@dataclass(frozen=True, kw_only=True)
class RecipeOptions:
    """Which model to train, and what its settings are derived from."""

    model: str = option(
        "mini-gpt",
        "which model",
        choices=("bigram", "mini-gpt", "nanochat", OWN),
        flags=("--model-kind",),
        common=True,
    )
    depth: int | None = option(
        None,
        "layers of nanochat's GPT; all other settings follow from it",
        minimum=1,
        common=True,
        needs=needs("model", "nanochat"),
    )
    tokens_per_parameter: float | None = option(
        None,
        "length of training, unless --steps is given (default 12)",
        above=0,
        needs=needs("model", "nanochat"),
    )
    start_from: str | None = option(
        None,
        "begin with the weights of this run, at 0.1 times its learning rate",
        flags=("--from",),
        common=True,
    )

    def __post_init__(self) -> None:
        validate(self)


NONE, BEST_FIT = "none", "best-fit"


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """The training data, its tokenizer, and the batch of a step."""

    source: str | tuple[str, ...] = option(
        "pydoc",
        "a file, folder or pattern, -, shakespeare or names",
        name="data",
        common=True,
        fixed=False,
        several=True,
    )
    text_field: str = option("text", "key or column that holds the text of a row of JSON, CSV or Parquet")
    encoding: str | None = option(None, "encoding of the files, such as latin-1 (default: detected)")
    split: str = option(
        AUTO, "what is held out: whole documents by their hash, or the end of the text", choices=(AUTO, DOCUMENTS, END)
    )
    tokenizer: str = option(
        AUTO,
        "what a token is (auto: bpe for long texts, characters for short ones)",
        choices=(AUTO, "characters", "bytes", "bpe"),
        others=True,
        common=True,
    )
    vocabulary: int = option(
        4096, "tokens that bpe learns", minimum=265, maximum=1 << 20, needs=needs("tokenizer", "bpe")
    )
    pre_tokenizer: str = option(
        "nanochat",
        "how text is split into pieces before bpe learns, named after a model whose tokenizer does the same; "
        "llama.cpp knows all but nanochat's",
        choices=("nanochat", "llama3", "qwen2", "gpt2", "smollm2"),
        needs=needs("tokenizer", "bpe"),
    )
    packing: str = option(
        NONE,
        "how a row is filled: with a window that begins anywhere in the text (none) or with whole documents (best-fit)",
        choices=(NONE, BEST_FIT),
        needs=needs("objective", AUTO),
    )
    batch_size: int = option(12, "rows of text per step", minimum=1, common=True)

    @property
    def name(self) -> str:
        """A short name of the data."""
        return self.source if isinstance(self.source, str) else short_list(self.source)

    @property
    def reading(self) -> dict[str, Any]:
        """How its files are read: the arguments of `open_data` other than the source."""
        return {"text_field": self.text_field, "encoding": self.encoding}

    def __post_init__(self) -> None:
        validate(self)


WHAT_TOKENS_ARE = ("data", "text_field", "encoding", "split", "tokenizer", "vocabulary", "pre_tokenizer")
"""The options that decide what a token is and what is held out. Runs that differ in these compare in bits per byte."""

BESIDE_MUON = needs("optimizer", "muon")


@dataclass(frozen=True, kw_only=True)
class OptimizerOptions:
    """How the gradient updates the weights."""

    kind: str = option(
        "adamw",
        "update rule; muon is for matrices",
        name="optimizer",
        choices=("adamw", "muon", "sgd"),
        common=True,
    )
    lr: float = option(4e-3, "highest learning rate", above=0, common=True)
    embedding_lr: float | None = option(
        None,
        "with Muon, learning rate of embeddings; by default 15 times --lr, or less if they begin smaller",
        above=0,
        needs=BESIDE_MUON,
    )
    head_lr: float | None = option(
        None, "with Muon, learning rate of the head; by default 0.4 times --lr", above=0, needs=BESIDE_MUON
    )
    scalar_lr: float | None = option(
        None, "with Muon, learning rate of scales; by default 25 times --lr", above=0, needs=BESIDE_MUON
    )
    weight_decay: float = option(
        0.1, "how strongly AdamW or Muon pulls matrices towards 0", minimum=0, needs=needs("optimizer", "adamw", "muon")
    )
    beta1: float = option(
        0.9, "decay rate of AdamW's mean gradient", minimum=0, below=1, needs=needs("optimizer", "adamw")
    )
    beta2: float = option(
        0.99, "decay rate of AdamW's mean squared gradient", minimum=0, below=1, needs=needs("optimizer", "adamw")
    )
    momentum: float = option(0.9, "momentum of SGD", minimum=0, below=1, needs=needs("optimizer", "sgd"))
    clip: float = option(1.0, "largest norm of the gradient; a larger gradient is scaled down; 0: no limit", minimum=0)

    def __post_init__(self) -> None:
        validate(self)


FALLING = needs("lr_schedule", "linear", "1-sqrt", "cosine", "nanochat")


@dataclass(frozen=True, kw_only=True)
class ScheduleOptions:
    """How long a run trains, and how its learning rate rises and falls."""

    steps: int = option(1000, "updates of the weights", minimum=1, common=True, fixed=False)
    minutes: float | None = option(
        None,
        "minutes of training; with --steps, at most this long",
        above=0,
        common=True,
        fixed=False,
    )
    lr_schedule: str = option(
        "linear",
        "how the learning rate falls",
        choices=("linear", "1-sqrt", "cosine", "constant", "nanochat"),
    )
    min_lr: float = option(0.0, "learning rate of the last step", minimum=0, needs=FALLING)
    warmup: int = option(100, "steps in which the learning rate rises; a tenth of a short run", minimum=0)
    warmdown: float = option(
        1.0, "share of the remaining steps in which the learning rate falls", above=0, maximum=1, needs=FALLING
    )

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The seed, and what a run evaluates, logs and saves, and when."""

    seed: int = option(1, "seed of weights, batches, dropout and samples", minimum=0, common=True)
    eval_every: int = option(250, "steps between evaluations", minimum=1, fixed=False)
    eval_tokens: int = option(
        32_768, "how many of the first held-out tokens to evaluate on (0: all)", minimum=0, fixed=False
    )
    checkpoint_every: int | None = option(
        None, "steps between checkpoints, in addition to those before evaluations", minimum=1, fixed=False
    )
    keep_checkpoints: int = option(
        2, "newest checkpoints to keep, in addition to the best", minimum=1, formerly=("keep",), fixed=False
    )
    log_every: int = option(10, "steps between lines of the log", minimum=1, fixed=False)
    track: str | None = option(
        None, "also send the log to a tracker", choices=("tensorboard", "trackio", "wandb"), fixed=False
    )

    def __post_init__(self) -> None:
        validate(self)
        if self.eval_tokens == 1:
            raise ConfigError("--eval-tokens: expected at least 2, or 0 for all, received 1: one token has no target")


@dataclass(frozen=True, kw_only=True)
class GuardOptions:
    """What a run does when something goes wrong."""

    on_nan: str = option("stop", "what to do when the loss is NaN", choices=("stop", "rollback"), fixed=False)
    skip_spikes: float | None = option(
        None,
        "skip an update whose loss is this many standard deviations above the last 50 losses",
        above=0,
        fixed=False,
    )
    max_memory_growth: float = option(
        0.5, "stop when memory has grown by this fraction between evaluations", above=0, fixed=False
    )

    def __post_init__(self) -> None:
        validate(self)
