"""What a user can choose about a model: one place for defaults and help texts."""

from __future__ import annotations

from dataclasses import dataclass

from tinygrad_chat.errors import ConfigError
from tinygrad_chat.options import option, validate


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The shape of a model. The defaults are mini-gpt's."""

    layers: int = option(4, "transformer blocks", minimum=0)
    heads: int = option(4, "attention heads; they divide the width", minimum=1)
    key_value_heads: int | None = option(None, "heads of keys and values, shared by query heads", minimum=1)
    width: int = option(128, "channels of the residual stream", minimum=1)
    context: int = option(64, "tokens the model looks at", minimum=1)
    norm: str = option("layernorm", "normalisation", choices=("layernorm", "rmsnorm", "none"))
    activation: str = option("gelu", "feed-forward non-linearity", choices=("gelu", "squared_relu"))
    positions: str = option("learned", "how positions are told apart", choices=("learned", "rotary", "none"))
    tied: bool = option(True, "share the token embedding with the output head")
    bias: bool = option(False, "biases in linear layers and layernorm")
    dropout: float = option(0.0, "share of activations dropped in training", minimum=0, below=1)
    window: int | None = option(None, "positions attention sees, the token's own included", minimum=1)
    soft_cap: float | None = option(None, "bend logits to stay within this size", above=0)

    @property
    def key_value_width(self) -> int:
        """Channels of a layer's keys, and of its values."""
        return (self.key_value_heads or self.heads) * (self.width // self.heads)

    def __post_init__(self) -> None:
        validate(self)
        if self.width % self.heads:
            raise ConfigError(f"--heads: expected a divisor of --width {self.width}, received {self.heads}")
        if self.key_value_heads and self.heads % self.key_value_heads:
            raise ConfigError(
                f"--key-value-heads: expected a divisor of --heads {self.heads}, received {self.key_value_heads}"
            )
        if self.positions == "rotary" and self.width // self.heads % 2:
            raise ConfigError(
                f"--positions rotary: expected an even width per head, received {self.width // self.heads}"
            )
