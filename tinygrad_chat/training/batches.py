"""What a run trains on, batch by batch."""

from __future__ import annotations

from collections.abc import Callable

from tinygrad_chat.config.groups import BEST_FIT
from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.seeds import rng
from tinygrad_chat.text.batches import Batch, random_batch
from tinygrad_chat.text.dataset import Dataset
from tinygrad_chat.text.packing import PackedRows


def batches_of(dataset: Dataset, config: TrainingConfig) -> Callable[[int], Batch]:
    """Return what makes a run's batches by their numbers: each depends on the seed and its number, and on nothing else.

    So no state of it is to be saved, and it does not matter how many processes share a batch.
    """
    size, context, seed = config.data.batch_size, config.model.context, config.run.seed
    if config.data.packing == BEST_FIT:
        rows = PackedRows(dataset.training, dataset.document_starts, context=context, seed=seed)
        return lambda number: rows.batch(number, batch_size=size)
    return lambda number: random_batch(
        dataset.training, batch_size=size, context=context, random=rng(seed, "batches", number)
    )
