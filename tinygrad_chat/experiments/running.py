"""The runs of an ablation one after another, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from tinygrad_chat.experiments.ablation import Ablation
from tinygrad_chat.experiments.planned import train_planned
from tinygrad_chat.experiments.results import add_result, held
from tinygrad_chat.training.events import Event
from tinygrad_chat.training.run import Run


def run_ablation(
    ablation: Ablation, folder: Path, *, should_stop: Callable[[], bool] = lambda: False, confirmed: bool = False
) -> Iterator[tuple[Run, Event]]:
    """Train all unfinished runs, and yield the events of each. Divergence is a result, too.

    Raises UsageError if `folder` holds another ablation, and whatever `start_run` and training raise.
    """
    with held(ablation, folder) as unfinished:
        for planned in unfinished:
            yield from train_planned(planned.config, planned.path, should_stop=should_stop, confirmed=confirmed)
            if add_result(folder, planned) is None:  # it was stopped
                return
