"""The memory that a model takes at least, and whether the machine has it."""

from __future__ import annotations

import sys

import psutil

from tinygrad_chat.autograd import Value
from tinygrad_chat.errors import ConfigError
from tinygrad_chat.models.options import ModelOptions
from tinygrad_chat.models.size import count_parameters

BYTES_A_NUMBER = {"tensor": 4, "scalar": 8}
"""Of the flat buffers of each engine: float32, float64."""

BYTES_A_LAYER = 4096
"""What a block's Python objects take at least, however few numbers they hold."""


def least_memory(options: ModelOptions, vocabulary: int, *, buffers: int, mode: str = "tensor") -> int:
    """Return the bytes without which a model cannot even be built.

    They hold `buffers` arrays as long as the parameters (weights, gradient, what the optimiser remembers), the tables
    of rotary angles while they are made, and each block's objects; in scalar mode also a Value for each number.
    """
    numbers = count_parameters(options, vocabulary)
    tables = 3 * 8 * options.context * (options.head_channels // 2) if options.positions == "rotary" else 0
    values = numbers * (sys.getsizeof(Value(0.5)) + sys.getsizeof(0.5)) if mode == "scalar" else 0
    return numbers * buffers * BYTES_A_NUMBER[mode] + tables + values + options.layers * BYTES_A_LAYER


def expect_room(options: ModelOptions, vocabulary: int, *, buffers: int, mode: str = "tensor") -> None:
    """Raise ConfigError where the machine has less memory available than the model takes at least."""
    needed = least_memory(options, vocabulary, buffers=buffers, mode=mode)
    available = psutil.virtual_memory().available
    if needed > available:
        raise ConfigError(
            f"--width {options.width} --layers {options.layers} --context {options.context}: "
            f"{count_parameters(options, vocabulary):,} parameters take at least {needed / 2**30:,.1f} GiB "
            f"with what goes with them, and this machine has {available / 2**30:,.1f} GiB available; "
            "choose a smaller --width, --layers or --context"
        )
