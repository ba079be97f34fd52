"""A model's size and FLOPs, computed from the parameter table without building it. Standard library only.

The result is immediate whatever the options: the table is as long for a billion layers as for one.
"""

from __future__ import annotations

from tinygrad_chat.models.options import ModelOptions
from tinygrad_chat.models.parameter_table import Role, is_trained, parameter_table


def count_parameters(options: ModelOptions, vocabulary: int, *roles: Role) -> int:
    """Return how many parameters the GPT of `options` has over V = `vocabulary` tokens, in these roles or in all.

    >>> count_parameters(ModelOptions(), 65)
    804096
    """
    return sum(entry.size for entry in parameter_table(options, vocabulary) if not roles or entry.role in roles)


def count_trained_parameters(options: ModelOptions, vocabulary: int) -> int:
    """Return how many parameters training updates: only these need a gradient and optimiser state."""
    return sum(entry.size for entry in parameter_table(options, vocabulary) if is_trained(entry.role, options))


def count_scaled_parameters(options: ModelOptions, vocabulary: int) -> int:
    """Return the parameters that nanochat's scaling laws count: the blocks' matrices and value gates, and the head,
    tied or not."""
    head = options.padded(vocabulary) * options.width
    return count_parameters(options, vocabulary, "matrix", "value_gate") + head


def flops_per_token(options: ModelOptions, vocabulary: int) -> int:
    """Return the floating-point operations that the model needs for one training token, forward and backward.

    That is 6 for each matrix element that takes part in a product (a multiplication and an addition forward, twice
    that backward), and in each layer 12 H D T for attention's two products of every position with all T of the
    context, or with the earlier positions in its window. This is PaLM's count (Chowdhery et al., arXiv:2204.02311,
    appendix B): the causal mask does not halve it, and element-wise work is left out. An embedding lookup is free;
    the head is not, tied or not, and its padding counts.
    """
    matrices = count_scaled_parameters(options, vocabulary) + count_parameters(options, vocabulary, "smear_gate")
    return 6 * matrices + 12 * options.query_width * _positions_attended(options)


def _positions_attended(options: ModelOptions) -> int:
    """Return how many positions a token attends to, summed over the layers; with a window, not counting its own."""

    def attended(layer: int) -> int:
        window = options.window_of(layer)
        return options.context if window is None else window - 1

    if not options.layers:
        return 0
    last, period = options.layers - 1, len(options.window_pattern or "S")
    repeated = (attended(layer) * len(range(layer, last, period)) for layer in range(min(period, last)))
    return sum(repeated) + attended(last)  # the last layer ignores the pattern
