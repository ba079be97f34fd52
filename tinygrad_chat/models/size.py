"""How large a model is and how much it computes, as closed formulas: nothing is built, whatever the options say."""

from __future__ import annotations

import sys

import psutil

from tinygrad_chat.autograd import Value
from tinygrad_chat.errors import ConfigError
from tinygrad_chat.models.options import ModelOptions

BYTES_A_NUMBER = {"tensor": 4, "scalar": 8}
"""Of the flat buffers of each engine: float32, float64."""

BYTES_A_LAYER = 4096
"""What a block's Python objects take at least, however few numbers they hold."""


def count_parameters(options: ModelOptions, vocabulary: int) -> int:
    """Return how many numbers the GPT of `options` learns over V = `vocabulary` tokens.

    >>> count_parameters(ModelOptions(), 65)
    804096
    """
    C, L, rows = options.width, options.layers, options.padded(vocabulary)
    norm = {"layernorm": C * (1 + options.bias), "rmsnorm": C * options.norm_gain, "none": 0}[options.norm]
    biases = options.bias * (2 * C + 2 * options.key_value_width + 5 * C)  # attention's four, feed-forward's two
    embeddings = rows * C * (1 if options.tied else 2)
    value_embeddings = _layers_with_value_embedding(options) * rows * options.key_value_width
    positions = options.context * C if options.positions == "learned" else 0
    blocks = L * (_block_matrices(options) + biases + 2 * norm) + _value_gates(options)
    smear = options.smear * (options.smear_channels + 1)
    scales = 2 * L * options.residual_scales + options.backout
    return embeddings + value_embeddings + positions + blocks + (1 + options.embedding_norm) * norm + smear + scales


def count_scaled_parameters(options: ModelOptions, vocabulary: int) -> int:
    """Return what nanochat's laws of scaling count: a block's matrices, gates of values included, and the head."""
    blocks = options.layers * _block_matrices(options) + _value_gates(options)
    return blocks + options.padded(vocabulary) * options.width


def flops_per_token(options: ModelOptions, vocabulary: int) -> int:
    """Return the floating-point operations of one training token, forward and backward: the model's, not the engine's.

    6 for each number of a matrix that takes part in a product (a multiplication and an addition forward, twice that
    backward), and 12 C T in each layer for attention's two products of every position with all T of the context, or
    with those that its window leaves before it. This is the count of PaLM (Chowdhery et al., arXiv:2204.02311,
    appendix B): the causal half is not taken off, element-wise work is not counted. Looking an embedding up costs
    nothing; the head does, tied or not, with its padding.
    """
    matrices = count_scaled_parameters(options, vocabulary) + options.smear * options.smear_channels
    windows = map(options.window_of, range(options.layers))
    seen = sum(options.context if window is None else window - 1 for window in windows)
    return 6 * matrices + 12 * options.width * seen


def _block_matrices(options: ModelOptions) -> int:
    """Numbers in a block's matrices: query and output, key and value, feed-forward out and back."""
    C = options.width
    return 2 * C * C + 2 * C * options.key_value_width + 8 * C * C


def _layers_with_value_embedding(options: ModelOptions) -> int:
    return (options.layers + 1) // 2 if options.value_embeddings else 0


def _value_gates(options: ModelOptions) -> int:
    """Numbers in the gates of value embeddings."""
    a_layer = options.gate_channels * (options.key_value_heads or options.heads)
    return _layers_with_value_embedding(options) * a_layer


def least_memory(options: ModelOptions, vocabulary: int, *, buffers: int, mode: str = "tensor") -> int:
    """Return the bytes without which a model cannot even be built.

    They hold `buffers` arrays as long as the parameters (weights, gradient, what the optimiser remembers), the tables
    of rotary angles while they are made, and each block's objects; in scalar mode also a Value for each number.
    """
    numbers = count_parameters(options, vocabulary)
    tables = 3 * 8 * options.context * (options.width // options.heads // 2) if options.positions == "rotary" else 0
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
