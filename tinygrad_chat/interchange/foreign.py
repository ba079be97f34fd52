"""Build a model from the parts of another program's files, whatever their format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.errors import CheckpointError
from tinygrad_chat.interchange.chats import can_chat
from tinygrad_chat.models.options import ModelOptions
from tinygrad_chat.runs.sampling import Sampling
from tinygrad_chat.runs.state import Progress, SavedModel
from tinygrad_chat.text.tokenizers import Tokenizer


def foreign_model(
    path: Path,
    options: ModelOptions,
    vocabulary: int,
    weights: Mapping[str, Any],
    tokenizer: Tokenizer,
    sampling: Sampling,
) -> SavedModel:
    """Return the model at `path`. Raises CheckpointError if its tokenizer has more tokens than the vocabulary."""
    if tokenizer.size > vocabulary:
        raise CheckpointError(
            f"{path}: expected a tokenizer of at most {vocabulary:,} tokens, as the model has, received one of "
            f"{tokenizer.size:,}"
        )
    return SavedModel(
        progress=Progress(),
        config=TrainingConfig(model=options),
        tokenizer=tokenizer,
        weights=weights,
        path=path,
        taught_to_chat=can_chat(tokenizer),
        sampling=sampling,
        of_another_program=True,
    )
