"""Several sources, each with its share of the rows of all batches, and each evaluated separately."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from tinygrad_chat.text.batches import Batch
from tinygrad_chat.text.dataset import Dataset
from tinygrad_chat.text.finding import LeftOut
from tinygrad_chat.text.shares import rows_between
from tinygrad_chat.text.split import AUTO
from tinygrad_chat.text.token_store import MixedStore, TokenStore


@dataclass(frozen=True)
class Mixture:
    """Several datasets, `parts`, and their `shares`, which sum to 1; the counterpart of `Dataset` for one source."""

    source: str
    parts: tuple[Dataset, ...]
    shares: tuple[Fraction, ...]

    @property
    def sha256(self) -> str:
        """A digest of the parts' contents and shares: another mixture is different data."""
        held = [[part.sha256, str(share)] for part, share in zip(self.parts, self.shares, strict=True)]
        return hashlib.sha256(json.dumps(held).encode()).hexdigest()

    @property
    def documents(self) -> int:
        """How many documents all parts have."""
        return sum(part.documents for part in self.parts)

    @property
    def training_tokens(self) -> int:
        """How many tokens there are to train on."""
        return sum(part.training_tokens for part in self.parts)

    @property
    def validation_tokens(self) -> int:
        """How many tokens are held out."""
        return sum(part.validation_tokens for part in self.parts)

    @property
    def split(self) -> str:
        """How all parts are split; AUTO if they differ."""
        splits = {part.split for part in self.parts}
        return splits.pop() if len(splits) == 1 else AUTO

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """What was not read, of all parts."""
        return tuple(each for part in self.parts for each in part.left_out)

    @property
    def objective(self) -> str:
        """What is learned from the parts, each objective once."""
        return " and ".join(dict.fromkeys(part.objective for part in self.parts))

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines for the user: what each part contributes, and how it was read."""
        lines: list[str] = []
        for part, share in zip(self.parts, self.shares, strict=True):
            size = f"{part.training_tokens:,} tokens, {part.validation_tokens:,} held out"
            lines += [f"{part.source}: {float(share):.3g} of the rows, {size}", *part.notes]
        return tuple(lines)

    def summary(self) -> dict[str, Any]:
        """Return what a run records about its data, ready for JSON."""
        parts = zip(self.parts, self.shares, strict=True)
        return {
            "source": self.source,
            "sha256": self.sha256,
            "bytes": sum(part.bytes for part in self.parts),
            "documents": self.documents,
            "split": self.split,
            "training_tokens": self.training_tokens,
            "validation_tokens": self.validation_tokens,
            "parts": [{**part.summary(), "share": str(share)} for part, share in parts],
        }


Data = Dataset | Mixture
"""What a run learns from."""


def dataset_of(opened: TokenStore | MixedStore, *, context: int) -> Data:
    """Return tokens split into training and validation. Raises DataError as `Dataset.from_store` does."""
    if isinstance(opened, TokenStore):
        return Dataset.from_store(opened, context=context)
    parts = tuple(Dataset.from_store(store, context=context) for store in opened.stores)
    return Mixture(opened.source, parts, opened.shares)


Draw = Callable[[Dataset, int, int], Batch]
"""Returns rows of one source: (source, its first row, how many rows)"""


def mixed_batch(data: Data, number: int, *, batch_size: int, draw: Draw) -> Batch:
    """Return batch `number`, (B, T): each source's share of the rows, one source after the other."""
    if isinstance(data, Dataset):
        return draw(data, number * batch_size, batch_size)
    rows = rows_between(data.shares, number * batch_size, (number + 1) * batch_size)
    drawn = [
        draw(part, first, stop - first) for part, (first, stop) in zip(data.parts, rows, strict=True) if stop > first
    ]
    tokens, targets = (np.concatenate(arrays) for arrays in zip(*drawn, strict=True))
    return tokens, targets
