"""A trained model, opened for sampling: its weights stay in their file, and nothing is made for training."""

from __future__ import annotations

from collections.abc import Callable

from tinygrad_chat.backend import Compute, get_backend
from tinygrad_chat.config.groups import OWN
from tinygrad_chat.errors import ConfigError
from tinygrad_chat.inference.options import InferenceOptions
from tinygrad_chat.models.engines import ENGINES
from tinygrad_chat.models.memory import expect_room_to_answer
from tinygrad_chat.models.protocol import LanguageModel
from tinygrad_chat.models.weights import stored_weights
from tinygrad_chat.runs.state import SavedModel

WORTH_COMPILED = 1000  # tokens: to load compiled kernels takes as long as they then save over about so many


def quick_kernels(tokens: int, backend: str = "auto", weights: str = "float32") -> str:
    """Return which kernels write a text of so many `tokens` soonest, in a process that has loaded none yet."""
    short = tokens < WORTH_COMPILED and weights == "float32"  # NumPy has no fast products with stored weights
    return "numpy" if short and get_backend(backend).name == "numpy" else "auto"


def load_model(
    saved: SavedModel,
    *,
    backend: str = "auto",
    kernels: str = "auto",
    dtype: str = "auto",
    mode: str | None = None,
    weights: str = "float32",
    make: Callable[[int], LanguageModel] | None = None,
) -> LanguageModel:
    """Return the model of a checkpoint, on any back end; one of somebody's own is made anew by `make`(vocabulary).

    `mode` is the engine that is to run it, by default the one that trained it, and `weights` how its matrices are kept:
    float32, float16 or int8. Raises CheckpointError where the weights do not fit the model, ConfigError where there is
    no such mode, the weights cannot be kept so or the machine has no room for it, BackendError for a back end that it
    lacks.
    """
    mode = InferenceOptions(mode=saved.config.compute.mode if mode is None else mode, weights=weights).mode
    if saved.config.recipe.model == OWN:
        if make is None:
            raise ConfigError(
                "the model is one of its trainer's own: open it in Python, as in load(path, model=YourModel)"
            )
        if weights != "float32":
            raise ConfigError(f"--weights {weights}: expected float32, as the model is one of its trainer's own")
        model = make(saved.tokenizer.size)
        model.parameters().load(saved.weights)
        return model
    compute = Compute.choose("numpy" if mode == "scalar" else backend, kernels, dtype)
    options, vocabulary, given = saved.config.replace(dropout=0.0).model, saved.tokenizer.size, saved.weights
    expect_room_to_answer(options, vocabulary, weights=weights, mode=mode)
    if weights != "float32":
        InferenceOptions(backend=compute.backend.name, mode=mode, weights=weights)  # says what cannot be
        given = stored_weights(options, vocabulary, given, weights)
    return ENGINES[mode](vocabulary, options, compute=compute, weights=given)
