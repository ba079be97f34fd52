"""The options of a model, with their defaults and help texts."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tinygrad_chat.errors import ConfigError
from tinygrad_chat.models.rotary_scaling import FAST_TURNS, pair_scales
from tinygrad_chat.option import needs, option, validate

# Constants of karpathy/nanochat, which has no names for them.
SHORT_WINDOW = 128  # a short window is a quarter of the context, rounded up to a multiple of this
GATE_CHANNELS = 12  # channels of the stream that the gates of value embeddings read
SMEAR_CHANNELS = 24  # channels of the embedding that the gate of the smear reads

WITH_BLOCKS = needs("model", "mini-gpt", "nanochat")
BUILT_IN = needs("model", "bigram", "mini-gpt", "nanochat")  # a user's own model defines its own shape
WITH_NORM = needs("norm", "layernorm", "rmsnorm")
WITH_ROTARY = needs("positions", "rotary")
SCALED = needs("rotary_scaling", "linear", "llama3", "yarn")
SCALED_BY_PAIR = needs("rotary_scaling", "llama3", "yarn")


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The architecture of a model. The defaults are mini-gpt's; nanochat's are in models/nanochat.py."""

    layers: int = option(4, "transformer blocks", minimum=0, common=True, needs=WITH_BLOCKS)
    heads: int = option(4, "attention heads", minimum=1, common=True, needs=WITH_BLOCKS)
    head_width: int | None = option(
        None, "channels of each head, by default the width divided by the heads", minimum=1, needs=WITH_BLOCKS
    )
    key_value_heads: int | None = option(
        None, "heads of keys and values, shared by query heads", minimum=1, needs=WITH_BLOCKS
    )
    width: int = option(128, "channels of the stream", minimum=1, common=True, needs=BUILT_IN)
    feed_forward_width: int | None = option(
        None, "channels within feed-forward, by default 4 x the width", minimum=1, needs=WITH_BLOCKS
    )
    context: int = option(64, "tokens that the model sees", minimum=1, common=True)
    norm: str = option("layernorm", "normalisation", choices=("layernorm", "rmsnorm", "none"), needs=BUILT_IN)
    norm_gain: bool = option(True, "a learned gain in each norm", needs=(BUILT_IN, WITH_NORM))
    norm_epsilon: float = option(1e-5, "added to a norm's mean square", above=0, needs=(BUILT_IN, WITH_NORM))
    activation: str = option(
        "gelu",
        "feed-forward non-linearity (swiglu: a second matrix gates the first)",
        choices=("gelu", "squared_relu", "swiglu"),
        needs=WITH_BLOCKS,
    )
    positions: str = option(
        "learned", "how the model knows positions", choices=("learned", "rotary", "none"), needs=WITH_BLOCKS
    )
    rotary_base: float = option(
        10000.0,
        "base of the rotary frequencies; with a larger base pairs turn more slowly",
        minimum=1,
        needs=(BUILT_IN, WITH_ROTARY),
    )
    rotary_scaling: str = option(
        "none",
        "how rotary pairs are slowed down for a context longer than in the original training",
        choices=("none", "linear", "llama3", "yarn"),
        needs=(WITH_BLOCKS, WITH_ROTARY),
    )
    rotary_factor: float = option(
        8.0, "factor by which rotary pairs are slowed down", minimum=1, needs=(WITH_BLOCKS, SCALED)
    )
    rotary_original_context: int | None = option(
        None,
        "context of the original training, by default the context divided by the factor",
        minimum=1,
        needs=(WITH_BLOCKS, SCALED_BY_PAIR),
    )
    rotary_slow_turns: float = option(
        1.0,
        "pairs that turn less often than this in the original context are fully slowed down",
        above=0,
        needs=(WITH_BLOCKS, SCALED_BY_PAIR),
    )
    rotary_fast_turns: float | None = option(
        None,
        "pairs that turn more often than this are not slowed down, by default 4 (llama3) or 32 (yarn)",
        above=0,
        needs=(WITH_BLOCKS, SCALED_BY_PAIR),
    )
    rotary_attention_factor: float | None = option(
        None,
        "factor for rotated queries and keys, by default 1 + ln(factor) / 10",
        above=0,
        needs=(WITH_BLOCKS, needs("rotary_scaling", "yarn")),
    )
    no_rotary_every: int | None = option(
        None,
        "no rotary positions in every Nth layer; 4 means the 4th, 8th, ...",
        minimum=1,
        needs=(WITH_BLOCKS, WITH_ROTARY),
    )
    qk_norm: float | None = option(
        None, "scale queries and keys to this root mean square in each head", above=0, needs=(BUILT_IN, WITH_ROTARY)
    )
    qk_gain: bool = option(
        False,
        "a learned gain for each channel of queries and keys, after their norm",
        needs=(WITH_BLOCKS, needs("qk_norm")),
    )
    tied: bool = option(True, "share the token embedding with the output head", needs=BUILT_IN)
    bias: bool = option(False, "biases in linear layers and layernorm", needs=BUILT_IN)
    query_key_value_bias: bool = option(
        False, "biases only for queries, keys and values", needs=(WITH_BLOCKS, needs("bias", False))
    )
    dropout: float = option(
        0.0, "share of activations dropped in training", minimum=0, below=1, needs=needs("mode", "tensor")
    )
    window: int | None = option(
        None, "positions that attention sees, including the token's own", minimum=1, needs=WITH_BLOCKS
    )
    window_pattern: str | None = option(
        None,
        "repeated pattern: S layers see the window, by default a quarter of the context; L layers and the last see all",
        needs=WITH_BLOCKS,
    )
    document_mask: bool = option(
        False, "attend only within documents: a token sees no tokens of earlier documents", needs=WITH_BLOCKS
    )
    document_token: int | None = option(
        None,
        "the token at the start of each document, by default the tokenizer's BOS",
        minimum=0,
        needs=(WITH_BLOCKS, needs("document_mask", True)),
    )
    soft_cap: float | None = option(None, "limit logits smoothly to this size", above=0, needs=BUILT_IN)
    embedding_norm: bool = option(False, "normalise the token embedding", needs=(BUILT_IN, WITH_NORM))
    smear: bool = option(False, "add a part of the previous token's embedding to each token's", needs=WITH_BLOCKS)
    residual_scales: bool = option(
        False,
        "before each block, scale the stream and add the first embedding, in learned proportions",
        needs=WITH_BLOCKS,
    )
    value_embeddings: bool = option(
        False, "in every other layer, add an embedding of the token to its values", needs=WITH_BLOCKS
    )
    backout: bool = option(
        False, "before the head, subtract a learned share of the middle layer's stream", needs=WITH_BLOCKS
    )
    vocabulary_multiple: int = option(
        1, "pad the rows of embeddings and head to a multiple of this", minimum=1, needs=BUILT_IN
    )
    lora: int | None = option(
        None,
        "train only adapters of this rank, beside the matrices of the blocks",
        minimum=1,
        needs=(WITH_BLOCKS, needs("start_from")),
    )
    lora_alpha: float = option(
        16.0,
        "the output of adapters is multiplied by this divided by their rank",
        above=0,
        needs=(WITH_BLOCKS, needs("lora")),
    )
    initialisation: str = option("gpt2", "initial values of weights", choices=("gpt2", "nanochat"), needs=BUILT_IN)

    @property
    def head_channels(self) -> int:
        """Channels of each head's queries, keys and values: D."""
        return self.head_width or self.width // self.heads

    @property
    def query_width(self) -> int:
        """Channels of a layer's queries, over all heads."""
        return self.heads * self.head_channels

    @property
    def key_value_width(self) -> int:
        """Channels of a layer's keys, and of its values."""
        return (self.key_value_heads or self.heads) * self.head_channels

    @property
    def feed_forward_channels(self) -> int:
        """Channels between the two matrices of feed-forward."""
        return self.feed_forward_width or 4 * self.width

    @property
    def gate_channels(self) -> int:
        """Channels of the stream that the gates of a value embedding read."""
        return min(GATE_CHANNELS, self.width)

    @property
    def smear_channels(self) -> int:
        """Channels of the embedding that the gate of the smear reads."""
        return min(SMEAR_CHANNELS, self.width)

    @property
    def lora_scale(self) -> float:
        """The factor of the adapters' product: alpha / rank (Hu et al., arXiv:2106.09685)."""
        return self.lora_alpha / (self.lora or 1)

    @property
    def middle(self) -> int:
        """The block whose output stream backout subtracts."""
        return self.layers // 2

    def window_of(self, layer: int) -> int | None:
        """Return how many positions a layer's attention sees, None for all."""
        window = self.window
        if self.window_pattern is not None:
            letter = self.window_pattern[layer % len(self.window_pattern)].upper()
            if letter == "L" or layer == self.layers - 1:
                return None
            quarter = -(-self.context // (4 * SHORT_WINDOW)) * SHORT_WINDOW
            window = window or quarter + 1  # upstream's count leaves out the token's own position
        return None if window is None or window >= self.context else window

    def has_rotary(self, layer: int) -> bool:
        """Return whether a layer's queries and keys are rotated by position."""
        every = self.no_rotary_every
        return self.positions == "rotary" and (every is None or (layer + 1) % every != 0)

    @property
    def original_context(self) -> int:
        """The context of the original training, which rotary scaling extends."""
        return self.rotary_original_context or max(1, round(self.context / self.rotary_factor))

    @property
    def fast_turns(self) -> float:
        """Rotary pairs that turn at least this often within the original context are not slowed down."""
        return self.rotary_fast_turns or FAST_TURNS.get(self.rotary_scaling, math.inf)

    @property
    def pair_scales(self) -> list[float]:
        """The factor of each rotary pair's frequency, D / 2 for a head."""
        return pair_scales(
            self.rotary_scaling,
            self.head_channels,
            base=self.rotary_base,
            factor=self.rotary_factor,
            context=self.original_context,
            slow=self.rotary_slow_turns,
            fast=self.fast_turns,
        )

    @property
    def attention_factor(self) -> float:
        """The factor of rotated queries and keys; YaRN's sharpens attention."""
        if self.rotary_scaling != "yarn":
            return 1.0
        return self.rotary_attention_factor or 1 + math.log(self.rotary_factor) / 10

    @property
    def value_embedding_layers(self) -> range:
        """The layers that have a value embedding: every other one, the last included."""
        return range((self.layers - 1) % 2, self.layers, 2) if self.value_embeddings else range(0)

    def has_value_embedding(self, layer: int) -> bool:
        """Return whether a layer has a value embedding."""
        return layer in self.value_embedding_layers

    def padded(self, vocabulary: int) -> int:
        """Return the number of rows of embedding and head for V = `vocabulary` tokens, padding included."""
        return -(-vocabulary // self.vocabulary_multiple) * self.vocabulary_multiple

    def __post_init__(self) -> None:
        validate(self)
        if self.head_width is None and self.width % self.heads:
            raise ConfigError(f"--heads: expected a divisor of --width {self.width}, received {self.heads}")
        if self.key_value_heads and self.heads % self.key_value_heads:
            raise ConfigError(
                f"--key-value-heads: expected a divisor of --heads {self.heads}, received {self.key_value_heads}"
            )
        if self.document_mask and self.document_token is None:
            raise ConfigError("--document-mask: expected a --document-token with which documents begin, received none")
        if self.positions == "rotary" and self.head_channels % 2:
            raise ConfigError(f"--positions rotary: expected an even width per head, received {self.head_channels}")
        if self.qk_norm is not None and self.positions != "rotary":
            raise ConfigError(f"--qk-norm: expected --positions rotary, received {self.positions}")
        if self.qk_gain and self.qk_norm is None:
            raise ConfigError("--qk-gain: expected a --qk-norm, received none")
        if self.qk_norm is not None and self.no_rotary_every is not None:
            raise ConfigError("--no-rotary-every: expected no --qk-norm, which is part of the rotation")
        if self.rotary_scaling in FAST_TURNS and self.fast_turns <= self.rotary_slow_turns:
            raise ConfigError(
                f"--rotary-slow-turns: expected less than --rotary-fast-turns {self.fast_turns}, "
                f"received {self.rotary_slow_turns}"
            )
        if self.rotary_scaling == "yarn" and self.rotary_base == 1:
            raise ConfigError("--rotary-scaling yarn: expected a --rotary-base above 1, received 1")
        if not self.norm_gain and (self.norm == "layernorm" or self.bias):
            raise ConfigError("--no-norm-gain: expected --norm rmsnorm without --bias")
        if self.window_pattern is not None and (not self.window_pattern or set(self.window_pattern.upper()) - {*"SL"}):
            raise ConfigError(f"--window-pattern: expected letters S and L, received {self.window_pattern!r}")
