"""Layers and the buffer that their parameters live in."""

from tinygrad_chat.nn.cache import KeyValueCache
from tinygrad_chat.nn.layers import ACTIVATIONS, Draw, Embedding, LayerNorm, Linear, Norm, RMSNorm, dropper, make_norm
from tinygrad_chat.nn.module import Module
from tinygrad_chat.nn.parameters import GradientBuffer, Parameters

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
    "dropper",
    "make_norm",
]
