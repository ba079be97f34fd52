"""What a run that is resumed is asked: whether more training is wanted, and whether its data is still the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.errors import CheckpointError, ConfigError, VocabularyError
from tinygrad_chat.formatting import count
from tinygrad_chat.runs.folder import RunFolder
from tinygrad_chat.runs.state import TrainingState
from tinygrad_chat.text.download import Progress
from tinygrad_chat.text.finding import UNREADABLE, LeftOut
from tinygrad_chat.text.mixture import Data
from tinygrad_chat.training.facts import OpenData, dataset_from
from tinygrad_chat.training.tokens import open_chosen


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


def reopen_data(
    config: TrainingConfig, saved: TrainingState, data: OpenData | None, *, progress: Progress | None
) -> tuple[TrainingConfig, Data]:
    """Return the configuration and the data of a run that was `saved`: what its configuration names, or the `data`
    passed in, which the configuration then names.

    Raises CheckpointError if it is not what the run was trained on. `progress` reports a download.
    """
    try:
        opened = data or open_chosen(config.data, saved.tokenizer, progress=progress)
        dataset = dataset_from(opened, context=config.model.context)
    except VocabularyError as error:
        raise _changed_data(saved.config, config) from error
    if data is not None:
        config = config.replace(data=dataset.source)
    if dataset.sha256 != saved.data.get("sha256"):
        raise _changed_data(saved.config, config, dataset.left_out)
    return config, dataset


def _changed_data(before: TrainingConfig, config: TrainingConfig, left_out: Sequence[LeftOut] = ()) -> CheckpointError:
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
