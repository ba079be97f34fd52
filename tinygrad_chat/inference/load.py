"""Open a trained model for inference: its weights stay in their file, and nothing is allocated for training."""

from __future__ import annotations

from collections.abc import Callable

from tinygrad_chat.backend import Compute, get_backend
from tinygrad_chat.config.groups import OWN
from tinygrad_chat.errors import ConfigError
from tinygrad_chat.inference.options import InferenceOptions
from tinygrad_chat.models.engines import ENGINES
from tinygrad_chat.models.gpt import GPT
from tinygrad_chat.models.memory import expect_room_to_answer
from tinygrad_chat.models.protocol import LanguageModel
from tinygrad_chat.models.weights import quantized_weights
from tinygrad_chat.runs.state import SavedModel

WORTH_COMPILED = 1000  # tokens: over about this many, compiled kernels save the time that loading them takes


def quick_kernels(tokens: int, backend: str = "auto", weights: str = "float32") -> str:
    """Return the kernels that generate `tokens` tokens soonest, in a process that has loaded none yet."""
    short = tokens < WORTH_COMPILED and weights == "float32"  # NumPy has no fast products with quantised weights
    return "numpy" if short and get_backend(backend).name == "numpy" else "auto"


def load_model(
    saved: SavedModel,
    *,
    backend: str = "auto",
    kernels: str = "auto",
    dtype: str = "auto",
    mode: str | None = None,
    weights: str = "float32",
    graph: bool = True,
    make: Callable[[int], LanguageModel] | None = None,
) -> LanguageModel:
    """Build the model of a checkpoint, on any back end. A user's own model is constructed by `make(vocabulary)`.

    `mode` is the engine to run it with, by default the one that trained it. `weights` is the format in which its
    matrices are kept: float32, float16 or int8. With `graph`, a GPU replays the step of one token as a CUDA graph.
    Raises CheckpointError if the weights do not fit the model, ConfigError for an unknown mode, a `weights` format that
    cannot be used or too little memory, BackendError for a back end that the machine lacks.
    """
    mode = InferenceOptions(mode=saved.config.compute.mode if mode is None else mode, weights=weights).mode
    if saved.config.recipe.model == OWN:
        if make is None:
            raise ConfigError("this is a custom model: open it in Python, as in load(path, model=YourModel)")
        if weights != "float32":
            raise ConfigError(f"--weights {weights}: expected float32 for a custom model")
        model = make(saved.tokenizer.size)
        model.parameters().load(saved.weights)
    else:
        compute = Compute.choose("numpy" if mode == "scalar" else backend, kernels, dtype)
        options, vocabulary, given = saved.config.replace(dropout=0.0).model, saved.tokenizer.size, saved.weights
        expect_room_to_answer(options, vocabulary, weights=weights, mode=mode)
        if weights != "float32":
            InferenceOptions(backend=compute.backend.name, mode=mode, weights=weights)  # raises for some
            given = quantized_weights(options, vocabulary, given, weights)
        model = ENGINES[mode](vocabulary, options, compute=compute, weights=given)
    if isinstance(model, GPT):
        model.captures_steps = graph
    return model
