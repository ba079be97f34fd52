"""Layers, the residual stream between them, and the buffers that their parameters live in."""

from tinygrad_chat.nn.cache import KeyValueCache, write_columns
from tinygrad_chat.nn.layers import (
    ACTIVATIONS,
    Embedding,
    LayerNorm,
    Linear,
    LoRALinear,
    Norm,
    RMSNorm,
    apply_to_one_input,
    dropper,
)
from tinygrad_chat.nn.module import Module
from tinygrad_chat.nn.next_column import AnyCache, NextColumn
from tinygrad_chat.nn.parameters import GradientBuffer, NewGradient, Parameters, expect_fitting
from tinygrad_chat.nn.quantized import QuantizedEmbedding, QuantizedLinear, QuantizedLinears, QuantizedWeight
from tinygrad_chat.nn.residual import ResidualStream

__all__ = [
    "ACTIVATIONS",
    "AnyCache",
    "Embedding",
    "GradientBuffer",
    "KeyValueCache",
    "LayerNorm",
    "Linear",
    "LoRALinear",
    "Module",
    "NewGradient",
    "NextColumn",
    "Norm",
    "Parameters",
    "QuantizedEmbedding",
    "QuantizedLinear",
    "QuantizedLinears",
    "QuantizedWeight",
    "RMSNorm",
    "ResidualStream",
    "apply_to_one_input",
    "dropper",
    "expect_fitting",
    "write_columns",
]
