"""Reasons to refuse a run, new or resumed: each a one-line error, found before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tinygrad_chat.config.groups import BEST_FIT
from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.errors import CheckpointError, ConfigError, UsageError, VocabularyError
from tinygrad_chat.files import is_folder, real_path
from tinygrad_chat.formatting import count, quoted
from tinygrad_chat.models.scalar import estimate_step_seconds
from tinygrad_chat.runs.folder import RunFolder
from tinygrad_chat.runs.state import TrainingState
from tinygrad_chat.text.finding import UNREADABLE, LeftOut, path_of
from tinygrad_chat.text.mixture import Data
from tinygrad_chat.text.shares import without_shares
from tinygrad_chat.text.tokenizers import Tokenizer

LONGEST_STEP = 60  # seconds; longer steps need the user's consent


def needs_own_data(config: TrainingConfig, path: Path) -> UsageError:
    """Return the error for resuming a run without the data that was passed in from Python."""
    return UsageError(
        f"{path}: is trained on data passed in Python ({config.data.name}); pass it again to "
        "tinygrad_chat.train(..., resume=True)"
    )


def expect_same_tokenizer(received: Tokenizer, saved: Tokenizer, path: str) -> None:
    """Raise VocabularyError if data has another tokenizer than the one `saved` with the model at `path`."""
    if received.state() != saved.state():
        raise VocabularyError(
            f"{path}: expected data from the run's tokenizer ({saved.kind}, {saved.size} tokens), received another "
            f"({received.kind}, {received.size} tokens); use tinygrad_chat.load_tokenizer({path!r}), or start a "
            "new run"
        )


def changed_data(before: TrainingConfig, config: TrainingConfig, left_out: Sequence[LeftOut] = ()) -> CheckpointError:
    """Return the error for a resumed run whose data, without the parts `left_out`, is not what it was trained on."""
    unreadable = [each.path for each in left_out if each.reason == UNREADABLE]
    if unreadable:
        return CheckpointError(
            f"--data {config.data.name}: is not what the run was trained on, as {count(len(unreadable), 'part')} of it "
            f"cannot be read now, such as {unreadable[0]}; change its permissions"
        )
    if config.data.source != before.data.source:
        return CheckpointError(
            f"--data {config.data.name}: is not the text that the run was trained on, {before.data.name}; leave --data "
            "out, or train on the new text in a new run with: tgc train --from RUN --data TEXT"
        )
    return CheckpointError(
        f"--data {config.data.name}: has changed since the run began (its SHA-256 differs); restore it, or start a "
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


def is_finished(
    config: TrainingConfig,
    saved: TrainingState,
    folder: RunFolder,
    changes: Mapping[str, Any],
    *,
    say: Callable[[str], None],
) -> bool:
    """Return whether a run has ended and no more is asked of it; say so, or how its schedule continues.

    Raises ConfigError if it has already done more than is asked.
    """
    steps, minutes, seconds = config.schedule.steps, config.schedule.minutes, saved.progress.seconds
    if steps < saved.step:
        raise ConfigError(f"--steps: expected at least the {saved.step} that the run has done, received {steps}")
    time_is_over = minutes is not None and seconds >= 60 * minutes
    if time_is_over and "minutes" in changes:
        raise ConfigError(
            f"--minutes: expected more than the {seconds / 60:.2f} that the run has used, received {minutes:g}"
        )
    if saved.step == steps or time_is_over:
        what, more = (f"its {count(steps, 'step')} are done", f"--steps {2 * steps}")
        if minutes is not None and time_is_over:
            what, more = (f"its {minutes:g} minutes are up", f"--minutes {2 * minutes:g}")
        say(f"{folder.path}: {what}; continue training with: {folder.resume_command} {more}")
        # It may have been killed before its last evaluation, or the log may have lost it.
        return folder.outcome_is("finished") and folder.was_evaluated(saved.step)
    if steps != saved.config.schedule.steps:
        say(f"--steps {steps}: from here on, the learning rate follows a schedule of that length")
    return False
