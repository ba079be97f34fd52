"""The algorithms of a run's matrix products on a GPU: recalled from its folder, and saved there as they are chosen."""

from __future__ import annotations

from collections.abc import Iterator

from tinygrad_chat.errors import FormatError
from tinygrad_chat.runs.products import read_products, write_products
from tinygrad_chat.training.events import ProductsDiffer
from tinygrad_chat.training.run import Run


def recall_products(run: Run) -> None:
    """Let the run compute its products as it did before. Raises StorageError if their file cannot be read."""
    choices, file = run.train_step.products, run.folder.products
    if choices is None:
        return
    try:
        record = read_products(file)
    except FormatError as error:
        choices.tell(str(error).removeprefix(f"{file.name}: "))
    else:
        if record is not None:
            choices.recall(record["made_by"], record["algorithms"])


def save_products(run: Run, step: int) -> Iterator[ProductsDiffer]:
    """Save the choices that the update after `step` others has made, if any, before its weights are saved, which depend
    on them. Raises StorageError."""
    choices = run.train_step.products
    if choices is None:
        return
    if choices.has_new:
        run.folder.follow()
        write_products(run.folder.products, choices.made_by, choices.algorithms)
        choices.has_new = False
    if choices.told is not None:
        yield ProductsDiffer(step, choices.told)
        choices.told = None
