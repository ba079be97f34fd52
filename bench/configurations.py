"""The models that are measured, each with its batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinygrad_chat.models.options import ModelOptions


@dataclass(frozen=True)
class Configuration:
    """A GPT of `options` over V = `vocabulary` tokens, fed B = `batch` windows a step."""

    batch: int
    vocabulary: int
    options: ModelOptions

    @classmethod
    def of(cls, B: int, V: int, T: int, C: int, H: int, L: int) -> Configuration:
        """Batch, vocabulary, context, width, heads, layers; all else as mini-gpt has it."""
        return cls(B, V, ModelOptions(context=T, width=C, heads=H, layers=L))

    @classmethod
    def parse(cls, sizes: str) -> Configuration:
        """Return the configuration whose `sizes` these are."""
        return cls.of(*map(int, sizes.split(",")))

    @property
    def sizes(self) -> str:
        """B,V,T,C,H,L, as a worker is told."""
        options = self.options
        sizes = (self.batch, self.vocabulary, options.context, options.width, options.heads, options.layers)
        return ",".join(map(str, sizes))

    @property
    def tokens(self) -> int:
        """Tokens a step."""
        return self.batch * self.options.context

    def draw(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the tokens and targets (B, T) of a step: random, and the same in every process."""
        windows = np.random.default_rng(step).integers(self.vocabulary, size=(self.batch, self.options.context + 1))
        return windows[:, :-1], windows[:, 1:]


CONFIGURATIONS = {
    "micro": Configuration.of(1, 27, 8, 16, 4, 1),
    "shakespeare-cpu": Configuration.of(12, 65, 64, 128, 4, 4),
    "10M": Configuration.of(8, 65, 256, 384, 6, 6),
    "small-bpe": Configuration.of(4, 8192, 256, 256, 4, 4),
}
"""(B, V, T, C, H, L); the second is nanoGPT's for CPUs."""

LEARNING_RATE = 1e-3
BETAS = (0.9, 0.99)
WEIGHT_DECAY = 0.1
CLIP = 1.0
