"""The least memory that a model and a training step need, and whether it is available. Nothing is built."""

from __future__ import annotations

import sys

from tinygrad_chat.autograd import Value
from tinygrad_chat.backend import available_memory
from tinygrad_chat.errors import NoRoomError
from tinygrad_chat.models.options import ModelOptions
from tinygrad_chat.models.size import count_parameters, count_scaled_parameters, count_trained_parameters

BYTES_A_NUMBER = {"tensor": 4, "scalar": 8}
"""Bytes per number in each engine's flat buffers: float32, float64."""

BYTES_STORED = {"float32": 4, "float16": 2, "int8": 1}
"""Bytes per element of a matrix, by the types that inference can store it in; the most precise first."""

BYTES_A_LAYER = 4096
"""The least that a block's Python objects take, however few numbers they hold."""

BYTES_A_TOKEN = 16
"""Bytes per token of a batch: the token and its target, int64."""

BYTES_A_VALUE = 16
"""The least that a graph of Values keeps per matrix element and token: an input and its local gradient."""


def least_memory(options: ModelOptions, vocabulary: int, *, buffers: int, mode: str = "tensor") -> int:
    """Return the fewest bytes with which a model can be built.

    They hold `buffers` arrays the size of the trained parameters (weights, gradient, optimiser state), one of the
    frozen ones, the tables of rotary angles while they are computed, and each block's Python objects; in scalar mode
    also a Value for each number.
    """
    numbers, trained = (count(options, vocabulary) for count in (count_parameters, count_trained_parameters))
    buffered = numbers + trained * (buffers - 1)
    tables = 3 * 8 * options.context * (options.head_channels // 2) if options.positions == "rotary" else 0
    values = numbers * (sys.getsizeof(Value(0.5)) + sys.getsizeof(0.5)) if mode == "scalar" else 0
    return buffered * BYTES_A_NUMBER[mode] + tables + values + options.layers * BYTES_A_LAYER


def least_step_memory(
    options: ModelOptions, vocabulary: int, *, tokens: int, mode: str = "tensor", size: int = 4, recompute: bool = False
) -> int:
    """Return the fewest bytes that a training step on `tokens` tokens at once needs, beside the model's own.

    The backward pass needs the activations of the forward pass. For each block these are the stream before and after
    each branch, norms, queries, keys, values, attention's output, and feed-forward's two wide arrays (three with a
    gate); then the logits, which their gradient overwrites. Each number takes `size` bytes. A real step takes up to
    twice as much.
    """
    if mode == "scalar":
        return tokens * (BYTES_A_TOKEN + BYTES_A_VALUE * count_scaled_parameters(options, vocabulary))
    turned = 2 if options.positions == "rotary" else 1  # queries and keys, before and after the rotation
    of_a_block = (
        (6 + options.residual_scales) * options.width
        + (1 + turned) * (options.query_width + options.key_value_width)
        + (3 if options.activation == "swiglu" else 2) * options.feed_forward_channels
    )
    of_blocks = options.layers * of_a_block
    if recompute:  # the stream before each block, and all activations of one
        of_blocks = options.layers * options.width + min(options.layers, 1) * of_a_block
    numbers = of_blocks + 2 * options.width + vocabulary
    return tokens * (BYTES_A_TOKEN + size * numbers)


def least_training_memory(
    options: ModelOptions,
    vocabulary: int,
    *,
    rows: int,
    buffers: int,
    mode: str = "tensor",
    size: int = 4,
    recompute: bool = False,
) -> int:
    """Return the fewest bytes that a model and a training step on `rows` rows of a batch at once need."""
    held = least_memory(options, vocabulary, buffers=buffers, mode=mode)
    tokens = rows * options.context
    return held + least_step_memory(options, vocabulary, tokens=tokens, mode=mode, size=size, recompute=recompute)


def expect_room(
    options: ModelOptions, vocabulary: int, *, buffers: int, mode: str = "tensor", available: int | None = None
) -> None:
    """Raise NoRoomError if less memory is `available` (by default, to this process) than the model needs at least."""
    needed = least_memory(options, vocabulary, buffers=buffers, mode=mode)
    available = available_memory() if available is None else available
    if needed > available:
        raise NoRoomError(
            f"--width {options.width} --layers {options.layers} --context {options.context}: "
            f"{count_parameters(options, vocabulary):,} parameters take at least {needed / 2**30:,.1f} GiB "
            f"with gradients and optimiser state, and {_only(available)}; choose a smaller --width, --layers or "
            "--context"
        )


def memory_to_answer(options: ModelOptions, vocabulary: int, *, mode: str = "tensor") -> dict[str, int]:
    """Return the fewest bytes that inference needs for a model, by the type its matrices are stored in."""
    numbers, whole = count_parameters(options, vocabulary), least_memory(options, vocabulary, buffers=1, mode=mode)
    kinds = BYTES_STORED if mode == "tensor" else {"float32": BYTES_A_NUMBER["tensor"]}
    return {kind: whole - (BYTES_A_NUMBER["tensor"] - size) * numbers for kind, size in kinds.items()}


def cache_memory(options: ModelOptions) -> int:
    """Return the bytes of the key/value cache for a full context, which inference needs beside the model."""
    return 2 * options.layers * options.key_value_width * options.context * BYTES_A_NUMBER["tensor"]


def expect_room_to_answer(
    options: ModelOptions, vocabulary: int, *, weights: str, mode: str = "tensor", available: int | None = None
) -> None:
    """Like `expect_room`, for inference with matrices stored as `weights`; the error says what would fit."""
    available = available_memory() if available is None else available
    needed = memory_to_answer(options, vocabulary, mode=mode)
    if needed[weights] > available:
        fitting = [f"--weights {kind} would fit" for kind in needed if needed[kind] <= available]
        raise NoRoomError(
            f"{count_parameters(options, vocabulary):,} parameters take at least "
            f"{needed[weights] / 2**30:,.1f} GiB as {weights}, and "
            f"{_only(available)}; {fitting[0] if fitting else 'this model is too large for this machine'}"
        )


def expect_room_for_step(
    options: ModelOptions,
    vocabulary: int,
    *,
    rows: int,
    buffers: int,
    mode: str = "tensor",
    size: int = 4,
    recompute: bool = False,
    available: int | None = None,
) -> None:
    """Like `expect_room`, for a step that computes the gradient of `rows` rows of a batch at once."""
    available = available_memory() if available is None else available
    expect_room(options, vocabulary, buffers=buffers, mode=mode, available=available)
    needed = least_training_memory(
        options, vocabulary, rows=rows, buffers=buffers, mode=mode, size=size, recompute=recompute
    )
    if needed > available:
        raise NoRoomError(
            f"--batch-size: a step of {rows:,} windows of --context {options.context} at once takes at least "
            f"{needed / 2**30:,.1f} GiB, and {_only(available)}; choose a smaller --batch-size, --context or "
            "--width, or compute it in more micro-batches with --grad-accumulation, which tgc plan --fit chooses"
            f"{'' if recompute else ', or --recompute'}"
        )


def _only(available: int) -> str:
    return f"only {available / 2**30:,.1f} GiB are available here"
