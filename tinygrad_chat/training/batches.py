"""What a run trains on, batch by batch."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from tinygrad_chat.config.groups import BEST_FIT
from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.seeds import rng
from tinygrad_chat.text.batches import Batch, WeightedBatch, random_batch
from tinygrad_chat.text.conversations.windows import ConversationRows
from tinygrad_chat.text.dataset import Dataset
from tinygrad_chat.text.mixture import Data, mixed_batch
from tinygrad_chat.text.packing import PackedRows


class Drawn(NamedTuple):
    """What a step trains on: its batch, figures for the log, and whether anything can be learned from it."""

    batch: Batch | WeightedBatch
    told: Mapping[str, float] = MappingProxyType({})
    has_signal: bool = True


class Batches:
    """A run's batches by number: each depends on the seed and its number, and on nothing else.

    So there is no state to save, and it does not matter how many processes share a batch, or that one is drawn ahead.
    `notes` are lines for the user that say what of the data is truncated.
    """

    def __init__(self, data: Data, config: TrainingConfig) -> None:
        self._data, self._size = data, config.data.batch_size
        self._context, self._seed = config.model.context, config.run.seed
        self._packed: dict[int, PackedRows | ConversationRows] = {}
        self._ahead: dict[int, Batch] = {}
        self.notes: list[str] = []
        for part in data.parts:
            if part.chats is not None:
                rows = part.training_rows(context=self._context, seed=self._seed)
                self._packed[id(part)] = rows
                self.notes += [f"{part.source}: {rows.note}"] if rows.note else []
            elif config.data.packing == BEST_FIT:
                self._packed[id(part)] = PackedRows(
                    part.training, part.document_starts, context=self._context, seed=self._seed
                )

    def __call__(self, number: int) -> Batch:
        """Return the batch of that number."""
        ahead, self._ahead = self._ahead, {}
        return ahead[number] if number in ahead else self._draw(number)

    def draw_ahead(self, number: int) -> None:
        """Draw the batch that will probably be asked for next."""
        self._ahead = {number: self._draw(number)}

    def _draw(self, number: int) -> Batch:
        random = rng(self._seed, "batches", number)

        def draw(part: Dataset, first: int, count: int) -> Batch:
            if id(part) in self._packed:
                return self._packed[id(part)].take(first, count)
            return random_batch(part.training, batch_size=count, context=self._context, random=random)

        return mixed_batch(self._data, number, batch_size=self._size, draw=draw)
