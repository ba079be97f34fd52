"""A trained model, opened for sampling: its weights stay in their file, and nothing is made for training."""

from __future__ import annotations

from collections.abc import Callable

from tinygrad_chat.backend import Compute, get_backend
from tinygrad_chat.config.groups import OWN, ComputeOptions
from tinygrad_chat.errors import ConfigError
from tinygrad_chat.models.engines import ENGINES
from tinygrad_chat.models.memory import expect_room
from tinygrad_chat.models.protocol import LanguageModel
from tinygrad_chat.runs.state import SavedModel

WORTH_COMPILED = 1000  # tokens: to load compiled kernels takes as long as they then save over about so many


def quick_kernels(tokens: int, backend: str = "auto") -> str:
    """Return which kernels write a text of so many `tokens` soonest, in a process that has loaded none yet."""
    on_host = get_backend(backend).name == "numpy"
    return "numpy" if on_host and tokens < WORTH_COMPILED else "auto"


def load_model(
    saved: SavedModel,
    *,
    backend: str = "auto",
    kernels: str = "auto",
    dtype: str = "auto",
    mode: str | None = None,
    make: Callable[[int], LanguageModel] | None = None,
) -> LanguageModel:
    """Return the model of a checkpoint, on any back end; one of somebody's own is made anew by `make`(vocabulary).

    `mode` is the engine that is to run it, by default the one that trained it. Raises CheckpointError where the weights
    do not fit the model, ConfigError where there is no such mode or the machine has no room for it, BackendError for a
    back end that it lacks.
    """
    mode = ComputeOptions(mode=saved.config.compute.mode if mode is None else mode).mode
    if saved.config.recipe.model == OWN:
        if make is None:
            raise ConfigError(
                "the model is one of its trainer's own: open it in Python, as in load(path, model=YourModel)"
            )
        model = make(saved.tokenizer.size)
        model.parameters().load(saved.weights)
        return model
    compute = Compute.choose("numpy" if mode == "scalar" else backend, kernels, dtype)
    options = saved.config.replace(dropout=0.0).model
    expect_room(options, saved.tokenizer.size, buffers=1, mode=mode)
    return ENGINES[mode](saved.tokenizer.size, options, compute=compute, weights=saved.weights)
