"""Create a run from another program's model: it can be trained, sampled from and exported like any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tinygrad_chat.backend import Compute
from tinygrad_chat.machine.environment import describe_environment
from tinygrad_chat.models.memory import expect_room
from tinygrad_chat.runs.folder import RunFolder
from tinygrad_chat.runs.state import SavedModel, TrainingState

BUFFERS = 3  # arrays the size of the parameters: the weights, the file that they are written to, and its content


def import_model(opened: SavedModel, folder: RunFolder) -> Path:
    """Create a run at step 0 from an opened model; return its checkpoint's path.

    Raises NoRoomError if its weights do not fit in memory as float32, UsageError if the folder already holds a run.
    """
    assert opened.path is not None
    config, tokenizer, source = opened.config, opened.tokenizer, opened.path.resolve().name
    expect_room(config.model, tokenizer.size, buffers=BUFFERS)
    weights = {name: np.asarray(array, np.float32) for name, array in opened.weights.items()}
    state = TrainingState(config=config, tokenizer=tokenizer, weights=weights, optimizer={}, sampling=opened.sampling)
    folder.create()
    folder.write_config(config)
    folder.write_environment({**describe_environment(Compute.choose("numpy")), "imported": source}, step=0)
    saved = state.save(folder.checkpoints)
    folder.write_outcome("imported", step=0, seconds=0.0, reason=f"imported from {source}")
    return saved
