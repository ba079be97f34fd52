"""Layers, the residual stream between them, and the buffers that their parameters live in."""

from tinygrad_chat.nn.cache import KeyValueCache
from tinygrad_chat.nn.layers import ACTIVATIONS, Draw, Embedding, LayerNorm, Linear, Norm, RMSNorm, dropper, make_norm
from tinygrad_chat.nn.module import Module
from tinygrad_chat.nn.parameters import GradientBuffer, Parameters
from tinygrad_chat.nn.residual import ResidualStream

__all__ = [
    "ACTIVATIONS",
    "Draw",
    "Embedding",
    "GradientBuffer",
    "KeyValueCache",
    "LayerNorm",
    "Linear",
    "Module",
    "Norm",
    "Parameters",
    "RMSNorm",
    "ResidualStream",
    "dropper",
    "make_norm",
]
