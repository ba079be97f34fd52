"""How large a model is and how much it computes, read off the parameter table: nothing is built. Standard library only.

Whatever the options say, the numbers come at once: the table is as long for a billion layers as for one.
"""

from __future__ import annotations

from tinygrad_chat.models.options import ModelOptions
from tinygrad_chat.models.parameter_table import Role, is_trained, parameter_table


def count_parameters(options: ModelOptions, vocabulary: int, *roles: Role) -> int:
    """Return how many numbers the GPT of `options` learns over V = `vocabulary` tokens, in these roles or in all.

    >>> count_parameters(ModelOptions(), 65)
    804096
    """
    return sum(entry.size for entry in parameter_table(options, vocabulary) if not roles or entry.role in roles)


def count_trained_parameters(options: ModelOptions, vocabulary: int) -> int:
    """Return how many of those numbers training moves, and remembers something of."""
    return sum(entry.size for entry in parameter_table(options, vocabulary) if is_trained(entry.role, options))


def count_scaled_parameters(options: ModelOptions, vocabulary: int) -> int:
    """Return what nanochat's scaling laws count: the matrices and value gates of blocks, and the head, tied or not."""
    head = options.padded(vocabulary) * options.width
    return count_parameters(options, vocabulary, "matrix", "value_gate") + head


def flops_per_token(options: ModelOptions, vocabulary: int) -> int:
    """Return the floating-point operations of one training token, forward and backward: the model's, not the engine's.

    6 for each number of a matrix that takes part in a product (a multiplication and an addition forward, twice that
    backward), and 12 H D T in each layer for attention's two products of every position with all T of the context, or
    with those that its window leaves before it. This is the count of PaLM (Chowdhery et al., arXiv:2204.02311,
    appendix B): the causal half is not taken off, element-wise work is not counted. Looking an embedding up costs
    nothing; the head does, tied or not, with its padding.
    """
    matrices = count_scaled_parameters(options, vocabulary) + count_parameters(options, vocabulary, "smear_gate")
    return 6 * matrices + 12 * options.query_width * _positions_attended(options)


def _positions_attended(options: ModelOptions) -> int:
    """Return how many positions a token attends to in all layers, its own left out where there is a window."""

    def attended(layer: int) -> int:
        window = options.window_of(layer)
        return options.context if window is None else window - 1

    if not options.layers:
        return 0
    last, period = options.layers - 1, len(options.window_pattern or "S")
    repeated = (attended(layer) * len(range(layer, last, period)) for layer in range(min(period, last)))
    return sum(repeated) + attended(last)  # the last layer is an exception to the pattern
