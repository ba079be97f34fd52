"""What a run trains on, batch by batch."""

from __future__ import annotations

from collections.abc import Callable

from tinygrad_chat.config.groups import BEST_FIT
from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.seeds import rng
from tinygrad_chat.text.batches import Batch, random_batch
from tinygrad_chat.text.conversations.windows import ConversationRows
from tinygrad_chat.text.dataset import Dataset
from tinygrad_chat.text.mixture import Data, mixed_batch
from tinygrad_chat.text.packing import PackedRows


def batches_of(data: Data, config: TrainingConfig) -> Callable[[int], Batch]:
    """Return what makes a run's batches by their numbers: each depends on the seed and its number, and on nothing else.

    So no state of it is to be saved, and it does not matter how many processes share a batch.
    """
    size, context, seed = config.data.batch_size, config.model.context, config.run.seed
    packed: dict[int, PackedRows | ConversationRows] = {}
    for part in data.parts:
        if part.chats is not None:
            packed[id(part)] = part.training_rows(context=context, seed=seed)
        elif config.data.packing == BEST_FIT:
            packed[id(part)] = PackedRows(part.training, part.document_starts, context=context, seed=seed)

    def batch(number: int) -> Batch:
        random = rng(seed, "batches", number)

        def draw(part: Dataset, first: int, count: int) -> Batch:
            if id(part) in packed:
                return packed[id(part)].take(first, count)
            return random_batch(part.training, batch_size=count, context=context, random=random)

        return mixed_batch(data, number, batch_size=size, draw=draw)

    return batch
