"""The architecture, written down once: every parameter of a GPT with its shape, role and initialiser.

Both engines are built from it; sizes, optimiser groups and importers use it too. Standard library only.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from tinygrad_chat.models.initialisation import INITIALISATIONS, ONES, ZEROS, Constant, Initialiser, Normal, Ramp
from tinygrad_chat.models.options import ModelOptions

Role = Literal[
    "embedding",
    "position_embedding",
    "value_embedding",
    "head",
    "matrix",
    "value_gate",
    "smear_gate",
    "gain",
    "bias",
    "residual_scale",
    "embedding_scale",
    "smear_scale",
    "backout_scale",
    "adapter",
]
"""The purpose of a parameter; "matrix" is any matrix of attention or feed-forward."""

ONCE = range(1)


@dataclass(frozen=True)
class Entry:
    """A parameter or, if the name contains {} for the layer, one in each of `layers`."""

    name: str
    shape: tuple[int, ...]
    role: Role
    initialiser: Initialiser
    layers: range = ONCE

    @property
    def size(self) -> int:
        """The number of elements, over all layers."""
        return math.prod(self.shape) * len(self.layers)


def parameter_table(options: ModelOptions, vocabulary: int) -> list[Entry]:
    """Return the parameters of the GPT of `options` over V = `vocabulary` tokens, in the order in which they are drawn.

    A head tied to the token embedding is not listed. The table has the same length for any number of layers.

    >>> [(entry.name, entry.shape) for entry in parameter_table(ModelOptions(layers=0, positions="none"), 65)]
    [('token_embedding.weight', (65, 128)), ('final_norm.gain', (128,))]
    """
    C, rows = options.width, options.padded(vocabulary)
    initial = INITIALISATIONS[options.initialisation](options)
    blocks, with_value_embedding = range(options.layers), options.value_embedding_layers

    def norm(name: str, layers: range = ONCE) -> Iterator[Entry]:
        if options.norm != "none" and options.norm_gain:
            yield Entry(f"{name}.gain", (C,), "gain", ONES, layers)
        if options.norm == "layernorm" and options.bias:
            yield Entry(f"{name}.bias", (C,), "bias", ZEROS, layers)

    def linear(
        name: str, outputs: int, inputs: int, initialiser: Initialiser, bias: bool = options.bias
    ) -> Iterator[Entry]:
        yield Entry(f"blocks.{{}}.{name}.weight", (outputs, inputs), "matrix", initialiser, blocks)
        if bias:
            yield Entry(f"blocks.{{}}.{name}.bias", (outputs,), "bias", ZEROS, blocks)
        if options.lora:  # B begins at 0, so that the model is unchanged at first (Hu et al., arXiv:2106.09685)
            narrow = Normal(1 / math.sqrt(inputs))
            yield Entry(f"blocks.{{}}.{name}.lora_a", (options.lora, inputs), "adapter", narrow, blocks)
            yield Entry(f"blocks.{{}}.{name}.lora_b", (outputs, options.lora), "adapter", ZEROS, blocks)

    def attention() -> Iterator[Entry]:
        bias = options.bias or options.query_key_value_bias
        yield from linear("attention.query", options.query_width, C, initial.read, bias)
        yield from linear("attention.key", options.key_value_width, C, initial.read, bias)
        yield from linear("attention.value", options.key_value_width, C, initial.read, bias)
        yield from linear("attention.output", C, options.query_width, initial.write)
        if options.qk_gain:
            for name in ("query_gain", "key_gain"):
                yield Entry(f"blocks.{{}}.attention.{name}", (options.head_channels,), "gain", ONES, blocks)
        gates = options.key_value_heads or options.heads, options.gate_channels
        yield Entry("blocks.{}.attention.value_gate.weight", gates, "value_gate", initial.gate, with_value_embedding)

    def feed_forward() -> Iterator[Entry]:
        if options.activation == "swiglu":
            yield from linear("feed_forward.gate", options.feed_forward_channels, C, initial.expand)
        yield from linear("feed_forward.expand", options.feed_forward_channels, C, initial.expand)
        yield from linear("feed_forward.contract", C, options.feed_forward_channels, initial.write)

    def entries() -> Iterator[Entry]:
        yield Entry("token_embedding.weight", (rows, C), "embedding", initial.embedding)
        if options.positions == "learned":
            yield Entry("position_embedding.weight", (options.context, C), "position_embedding", initial.embedding)
        if options.embedding_norm:
            yield from norm("embedding_norm")
        yield from norm("blocks.{}.attention_norm", blocks)
        yield from attention()
        yield from norm("blocks.{}.feed_forward_norm", blocks)
        yield from feed_forward()
        yield from norm("final_norm")
        if not options.tied:
            yield Entry("head.weight", (rows, C), "head", initial.head)
        values = rows, options.key_value_width
        yield Entry(
            "value_embeddings.{}.weight", values, "value_embedding", initial.value_embedding, with_value_embedding
        )
        if options.smear:
            yield Entry("smear_gate.weight", (1, options.smear_channels), "smear_gate", initial.gate)
            yield Entry("smear_scale", (1,), "smear_scale", ZEROS)
        if options.residual_scales:
            yield Entry("residual_scales", (options.layers,), "residual_scale", Ramp(1.15, -0.10))
            yield Entry("embedding_scales", (options.layers,), "embedding_scale", Ramp(0.20, -0.15))
        if options.backout:
            yield Entry("backout_scale", (1,), "backout_scale", Constant(0.2))

    return [entry for entry in entries() if entry.layers]


def by_name(table: Iterable[Entry]) -> Iterator[tuple[str, int, Entry]]:
    """Yield every parameter's name, its layer (0 if it is in none) and its entry, layer by layer."""
    for _, group in itertools.groupby(table, key=lambda entry: entry.name.partition("{}")[0]):
        entries = list(group)
        for layer in range(max(entry.layers.stop for entry in entries)):
            for entry in entries:
                if layer in entry.layers:
                    yield entry.name.format(layer), layer, entry


def parameter_roles(options: ModelOptions, vocabulary: int) -> dict[str, Role]:
    """Return the role of every parameter, by name."""
    return {name: entry.role for name, _, entry in by_name(parameter_table(options, vocabulary))}


def is_trained(role: Role, options: ModelOptions) -> bool:
    """Return whether parameters of that role are trained: all are or, with LoRA, only the adapters."""
    return not options.lora or role == "adapter"
