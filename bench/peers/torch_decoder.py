"""Generation in PyTorch with a key/value cache: buffers as long as the context, written in place, nothing joined."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.configurations import Configuration
from bench.peers.torch_gpt import TorchBlock, TorchGPT


class TorchDecoder:
    """The GPT of `configuration` as it reads tokens of `configuration.batch` sequences, a few at a time."""

    def __init__(
        self,
        configuration: Configuration,
        weights: Mapping[str, np.ndarray],
        *,
        compiled: bool = False,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        options, B = configuration.options, configuration.batch
        self.model = TorchGPT(configuration, weights).eval().to(device, dtype)
        self.device = device
        shape = (B, options.heads, options.context, options.head_channels)
        place = {"device": device, "dtype": dtype}
        self.caches = [(torch.zeros(shape, **place), torch.zeros(shape, **place)) for _ in range(options.layers)]
        self.length = 0
        self._logits = torch.compile(_logits) if compiled else _logits

    def begin(self) -> None:
        """Forget every token."""
        self.length = 0

    def tokens(self, array: np.ndarray) -> Tensor:
        """Return tokens as `read` takes them."""
        return torch.from_numpy(array).to(self.device)

    @torch.inference_mode()
    def read(self, tokens: Tensor) -> Tensor:
        """Logits (B, V) of the token after tokens (B, T): all that come first, or one after what was read before."""
        start = self.length
        self.length += tokens.shape[1]
        return self._logits(self.model, self.caches, tokens, start, self.length)


def _logits(model: TorchGPT, caches: list[tuple[Tensor, Tensor]], tokens: Tensor, start: int, end: int) -> Tensor:
    x = model.token_embedding(tokens) + model.position_embedding.weight[start:end]
    for block, (keys, values) in zip(cast("Iterable[TorchBlock]", model.blocks), caches, strict=True):
        query, key, value = block.project(x)
        keys[:, :, start:end] = key
        values[:, :, start:end] = value
        seen = keys[:, :, :end], values[:, :, :end]
        x = block.finish(x, F.scaled_dot_product_attention(query, *seen, is_causal=start == 0))
    return F.linear(model.final_norm(x[:, -1]), model.token_embedding.weight)
