"""A model's weights as arrays: drawn as the parameter table says, checked against it, and made into layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tinygrad_chat.backend import Backend
from tinygrad_chat.models.initialisation import Constant, Initialiser, Normal, Ramp, Uniform
from tinygrad_chat.models.options import ModelOptions
from tinygrad_chat.models.parameter_table import Role, by_name, is_trained, parameter_table
from tinygrad_chat.nn import (
    Embedding,
    LayerNorm,
    Linear,
    LoRALinear,
    Norm,
    QuantizedEmbedding,
    QuantizedLinear,
    QuantizedWeight,
    RMSNorm,
    expect_fitting,
)

QUANTIZED: set[Role] = {"matrix", "head", "embedding", "value_embedding"}
"""The roles of parameters that are quantised: nearly all of a model."""


def draw(initialiser: Initialiser, random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw a weight's initial values, float32 of that shape."""
    match initialiser:
        case Normal(std):
            drawn = std * random.standard_normal(shape)
        case Uniform(low, high):
            drawn = random.uniform(low, high, shape)
        case Constant(value):
            drawn = np.full(shape, value)
        case Ramp(first, change):
            (length,) = shape
            drawn = first + change * (np.arange(length) / max(length - 1, 1))
    return drawn.astype(np.float32)


def draw_weights(
    options: ModelOptions, vocabulary: int, random: np.random.Generator | None = None
) -> dict[str, np.ndarray]:
    """Return the initial weights of a GPT by name, drawn from `random` or, by default, with a fixed seed."""
    random = random or np.random.default_rng(0)
    named = by_name(parameter_table(options, vocabulary))
    return {name: draw(entry.initialiser, random, entry.shape) for name, _, entry in named}


def checked_weights(options: ModelOptions, vocabulary: int, weights: Mapping[str, Any]) -> dict[str, Any]:
    """Return `weights` in the table's order. Raises CheckpointError if names or shapes differ from the table's."""
    shapes = {name: entry.shape for name, _, entry in by_name(parameter_table(options, vocabulary))}
    expect_fitting(shapes, weights)
    return {name: weights[name] for name in shapes}


def quantized_weights(
    options: ModelOptions, vocabulary: int, weights: Mapping[str, Any], kind: str
) -> dict[str, np.ndarray | QuantizedWeight]:
    """Return a copy of a model's weights with its matrices quantised to "float16" or "int8". Raises CheckpointError
    like `checked_weights`."""
    table = by_name(parameter_table(options, vocabulary))
    quantized = {name for name, _, entry in table if entry.role in QUANTIZED}
    checked = checked_weights(options, vocabulary, weights)
    return {
        name: QuantizedWeight.of(each, kind) if name in quantized else np.array(each) for name, each in checked.items()
    }


def side_by_side(arrays: Mapping[str, Any], dtype: Any, backend: Backend) -> dict[str, Any]:
    """Return arrays as those of a back end, of type `dtype`. All that a device has to be sent come into one buffer,
    matrices first as in `Parameters`: there the weights of layers with one input are neighbours, and one product."""
    xp = backend.xp
    on_host = backend.name == "numpy"
    there = {name: xp.asarray(x, dtype) for name, x in arrays.items() if on_host or isinstance(x, backend.array_type)}
    sent = sorted((name for name in arrays if name not in there), key=lambda name: arrays[name].ndim < 2)
    buffer, start = xp.empty(sum(arrays[name].size for name in sent), dtype), 0
    for name in sent:
        end = start + arrays[name].size
        there[name] = buffer[start:end].reshape(arrays[name].shape)
        there[name][...] = xp.asarray(arrays[name], dtype)
        start = end
    return {name: there[name] for name in arrays}


def frozen_names(options: ModelOptions, vocabulary: int) -> set[str]:
    """Return the names of the weights that training does not update: none or, with LoRA, all but the adapters."""
    table = by_name(parameter_table(options, vocabulary))
    return {name for name, _, entry in table if not is_trained(entry.role, options)}


class Weights:
    """Tensors by name, and the layers of a GPT of `options` built from them. `path` is a prefix of every name.

    A frozen weight is a bare array instead of a Tensor: ops treat it as a constant. A QuantizedWeight makes a layer
    that has no gradient.
    """

    def __init__(self, tensors: Mapping[str, Any], options: ModelOptions, path: str = "") -> None:
        self._tensors = tensors
        self._options = options
        self._path = path

    def at(self, path: str) -> Weights:
        """Return the weights under a path such as blocks.0.attention."""
        return Weights(self._tensors, self._options, f"{self._path}{path}.")

    def get(self, name: str) -> Any:
        """Return the Tensor of that name, if the model has it."""
        return self._tensors.get(self._path + name)

    def linear(self, name: str) -> Linear:
        """Return the linear layer of that name, with its adapter if it has one."""
        base = {"weight": self._tensors[f"{self._path}{name}.weight"], "bias": self.get(f"{name}.bias")}
        if isinstance(base["weight"], QuantizedWeight):
            return QuantizedLinear.of(**base)
        lora_a = self.get(f"{name}.lora_a")
        if lora_a is None:
            return Linear.of(**base)
        scale = self._options.lora_scale
        return LoRALinear.of(**base, lora_a=lora_a, lora_b=self.get(f"{name}.lora_b"), scale=scale)

    def embedding(self, name: str) -> Embedding:
        """Return the embedding of that name."""
        weight = self._tensors[f"{self._path}{name}.weight"]
        return (QuantizedEmbedding if isinstance(weight, QuantizedWeight) else Embedding).of(weight=weight)

    def norm(self, name: str) -> Norm:
        """Return the norm of that name."""
        gain, bias, epsilon = self.get(f"{name}.gain"), self.get(f"{name}.bias"), self._options.norm_epsilon
        match self._options.norm:
            case "layernorm":
                return LayerNorm.of(gain=gain, bias=bias, epsilon=epsilon)
            case "rmsnorm":
                return RMSNorm.of(gain=gain, epsilon=epsilon)
        return Norm()
