"""Checks that refuse a run, new or resumed: each raises a one-line error, before anything is written."""

from __future__ import annotations

from pathlib import Path

from tinygrad_chat.config.groups import BEST_FIT
from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.errors import ConfigError, UsageError, VocabularyError
from tinygrad_chat.files import is_folder, real_path
from tinygrad_chat.formatting import quoted
from tinygrad_chat.models.scalar import estimate_step_seconds
from tinygrad_chat.runs.consent import expect_named
from tinygrad_chat.text.finding import path_of
from tinygrad_chat.text.mixture import Data
from tinygrad_chat.text.shares import without_shares
from tinygrad_chat.text.tokenizers import Tokenizer

LONGEST_STEP = 60  # seconds; longer steps need the user's consent


def expect_named_data(config: TrainingConfig, path: Path, *, own: bool) -> None:
    """Raise UsageError if the run at `path` cannot be resumed by the name of its data alone: `own` data was passed in
    from Python, and data on the hub must be named by the user."""
    if own:
        raise UsageError(
            f"{path}: is trained on data passed in Python ({config.data.name}); pass it again to "
            "tinygrad_chat.train(..., resume=True)"
        )
    expect_named(path, config.data.source)


def expect_same_tokenizer(received: Tokenizer, saved: Tokenizer, path: str) -> None:
    """Raise VocabularyError if data has another tokenizer than the one `saved` with the model at `path`."""
    if received.state() != saved.state():
        raise VocabularyError(
            f"{path}: expected data from the run's tokenizer ({saved.kind}, {saved.size} tokens), received another "
            f"({received.kind}, {received.size} tokens); use tinygrad_chat.load_tokenizer({path!r}), or start a "
            "new run"
        )


def expect_outside(path: Path, config: TrainingConfig) -> None:
    """Raise UsageError if a run's folder is that of its data: the run would be trained on its own output."""
    for source in without_shares(config.data.source):
        if is_folder(path_of(source), follow=True) and real_path(path_of(source)) == real_path(path):
            other = quoted(path / "run")
            raise UsageError(f"--out {path}: is the folder of the data; choose another, as in --out {other}")


def expect_packed(data: Data, config: TrainingConfig) -> None:
    """Raise ConfigError if rows of text are to be packed but all data are conversations."""
    if config.data.packing == BEST_FIT and all(part.chats is not None for part in data.parts):
        raise ConfigError(
            f"--packing {BEST_FIT}: has no effect with conversations, which are always whole in their rows; leave it "
            "out"
        )


def expect_patience(config: TrainingConfig, tokenizer: Tokenizer) -> None:
    """Raise UsageError for a scalar model whose steps would take minutes."""
    if config.compute.mode != "scalar":
        return
    tokens = config.tokens_per_step
    seconds = estimate_step_seconds(config.model, vocabulary=tokenizer.size, tokens=tokens)
    if seconds > LONGEST_STEP:
        raise UsageError(
            f"--mode scalar: a step of {tokens} tokens at --width {config.model.width} and --layers "
            f"{config.model.layers} would take about {seconds / 60:.0f} minutes; choose smaller ones, or add --yes to "
            "continue"
        )
