"""A run of ours from another program's model: it is trained, sampled from and exported like any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tinygrad_chat.backend import Compute
from tinygrad_chat.machine.environment import describe_environment
from tinygrad_chat.models.memory import expect_room
from tinygrad_chat.runs.folder import RunFolder
from tinygrad_chat.runs.state import SavedModel, TrainingState

BUFFERS = 3  # arrays as long as the parameters: the weights, the file that they are written to, and its content


def import_model(opened: SavedModel, folder: RunFolder) -> Path:
    """Make a run of step 0 from an opened model; return its checkpoint's path.

    Raises NoRoomError where its weights have no room as float32, UsageError where the folder holds a run already.
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
