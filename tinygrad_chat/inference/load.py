"""A trained model, opened for sampling: its weights stay in their file, and nothing is made for training."""

from __future__ import annotations

from tinygrad_chat.models.protocol import LanguageModel
from tinygrad_chat.runs.state import SavedModel
from tinygrad_chat.training.build import build_model


def load_model(
    saved: SavedModel, *, backend: str = "auto", kernels: str = "auto", dtype: str = "auto", mode: str | None = None
) -> LanguageModel:
    """Return the model of a checkpoint, on any back end.

    `mode` is the engine that is to run it, by default the one that trained it. Raises CheckpointError where the weights
    do not fit the model.
    """
    chosen = {"backend": backend, "kernels": kernels, "dtype": dtype, "mode": mode or saved.config.compute.mode}
    config = saved.config.replace(**chosen, dropout=0.0)
    model = build_model(config, saved.tokenizer.size)
    model.parameters().load(saved.weights)
    return model
