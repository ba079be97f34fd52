"""Each concurrent run's share of the machine: threads, a GPU, memory."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

from tinygrad_chat.backend.host_threads import count_cores
from tinygrad_chat.config.groups import WHAT_TOKENS_ARE
from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.errors import NoRoomError
from tinygrad_chat.experiments.ablation import label
from tinygrad_chat.experiments.planned import PlannedRun
from tinygrad_chat.formatting import count, memory_size
from tinygrad_chat.machine.memory import memory_held
from tinygrad_chat.models.memory import least_training_memory
from tinygrad_chat.text.download import Progress as Reading
from tinygrad_chat.training.build import TRAINED, choose_compute
from tinygrad_chat.training.facts import tokenizer_of
from tinygrad_chat.training.parent import open_data_for, open_parent
from tinygrad_chat.training.tokens import open_chosen


def with_threads(run: PlannedRun, jobs: int) -> PlannedRun:
    """Return a run with its share of the cores as threads, unless its settings fix their number."""
    if run.config.compute.threads is not None:
        return run
    return dataclasses.replace(run, config=run.config.replace(threads=max(1, count_cores() // jobs)))


def describe_shares(runs: Sequence[PlannedRun], jobs: int, devices: Sequence[str]) -> str:
    """Describe in one line the share of each of `jobs` concurrent runs, and whether they oversubscribe the machine."""
    threads = max((run.config.compute.threads or 1 for run in runs), default=1)
    cores = count_cores()
    on = f", on {count(len(devices), 'GPU')} in turn" if devices else ""
    line = f"{count(jobs, 'run')} at a time, {count(threads, 'thread')} each{on}"
    if jobs * threads <= cores or devices:
        return line
    return f"{line}: more than the {count(cores, 'core')} here, so each is slower; choose fewer --jobs or --threads"


def devices_of(runs: Sequence[PlannedRun]) -> list[str]:
    """Return the GPUs to assign to the runs in turn; none if all compute on the host.

    Raises BackendError if a back end is missing.
    """
    backends = {run.config.compute.backend: choose_compute(run.config).backend for run in runs}
    return next((devices for backend in backends.values() if (devices := backend.visible_devices())), [])


def read_texts(runs: Sequence[PlannedRun], *, progress: Reading | None = None) -> dict[str, int]:
    """Open each text once for all runs that read it, so that it is tokenized before they begin.

    Return the vocabulary size of each run by its name; `progress` reports the reading.
    """
    found: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for run in runs:
        settings = run.config.settings()
        text = str([settings[name] for name in ("start_from", *WHAT_TOKENS_ARE)])
        if text not in sizes:
            sizes[text] = _count_tokens_to_know(run.config, progress)
        found[run.name] = sizes[text]
    return found


def expect_room_for(
    runs: Sequence[PlannedRun], vocabularies: Mapping[str, int], jobs: int, devices: Sequence[str]
) -> None:
    """Raise NoRoomError, which says how many would fit, if there is no room for `jobs` runs at once.

    With several GPUs, each has its own memory and its share of the runs.
    """
    needed: dict[str, int] = {}  # by cell, as all seeds need the same
    for run in runs:
        cell = label(run.choices)
        if cell not in needed:
            needed[cell] = _least_memory(run.config, vocabularies[run.name])
    each = sorted((needed[label(run.choices)] for run in runs), reverse=True)[:jobs]
    together = math.ceil(len(each) / max(1, len(devices)))
    if together < 2:
        return  # a run with no room even alone will raise its own error
    backend = choose_compute(runs[0].config).backend
    free = backend.memory_free()
    fitting = sum(total <= free for total in itertools.accumulate(each[:together]))
    if fitting < together:
        where = f"on each of {count(len(devices), 'GPU')}" if devices else "here"
        fit = max(1, fitting) * max(1, len(devices))
        raise NoRoomError(
            f"--jobs {jobs}: {count(together, 'run')} at once take at least {memory_size(sum(each[:together]))}, and "
            f"only {memory_size(free)} are available {where}; choose --jobs {fit}, a smaller --batch-size or --width"
        )


def _count_tokens_to_know(config: TrainingConfig, progress: Reading | None) -> int:
    """Open a run's text, so that it is tokenized from here on, and return the size of its vocabulary."""
    if config.recipe.start_from is not None:
        return tokenizer_of(open_data_for(open_parent(config.recipe.start_from), config.data, progress=progress)).size
    return tokenizer_of(open_chosen(config.data, config.data.tokenizer, progress=progress)).size


def _least_memory(config: TrainingConfig, vocabulary: int) -> int:
    """Return the least bytes that a run's process needs, on the device or host where its arrays live. On the host, add
    what this process holds, as the run's process will load the same modules and data."""
    compute, rows = choose_compute(config), config.micro_batch
    on_host = compute.backend.name == "numpy"
    ranks = min(config.compute.threads or 1, rows) if on_host else 1  # each has its own gradient
    return least_training_memory(
        config.model,
        vocabulary,
        rows=rows,
        buffers=TRAINED[config.optimizer.kind] + ranks - 1,
        mode=config.compute.mode,
        size=compute.array_dtype.itemsize,
        recompute=config.compute.recompute,
    ) + (memory_held(compute.backend)["memory"] if on_host else 0)
