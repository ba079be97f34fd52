"""The measured GPT in PyTorch: pre-norm blocks, queries, keys and values in one product, fused attention and AdamW."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.configurations import BETAS, LEARNING_RATE, WEIGHT_DECAY
from tinygrad_chat.models.options import ModelOptions


class TorchBlock(nn.Module):
    """Attention, then feed-forward, each added to the stream."""

    def __init__(self, C: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(C, bias=False)
        self.query_key_value = nn.Linear(C, 3 * C, bias=False)
        self.output = nn.Linear(C, C, bias=False)
        self.feed_forward_norm = nn.LayerNorm(C, bias=False)
        self.expand = nn.Linear(C, 4 * C, bias=False)
        self.contract = nn.Linear(4 * C, C, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, C) -> (B, T, C)."""
        B, T, C = x.shape
        projected = self.query_key_value(self.attention_norm(x)).view(B, T, 3, self.heads, C // self.heads)
        query, key, value = projected.permute(2, 0, 3, 1, 4)
        gathered = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.output(gathered.transpose(1, 2).reshape(B, T, C))
        hidden = F.gelu(self.expand(self.feed_forward_norm(x)), approximate="tanh")
        return x + self.contract(hidden)


class TorchGPT(nn.Module):
    """The same model as `tinygrad_chat.GPT` with these options, for those that the measured configurations use."""

    def __init__(self, vocabulary: int, options: ModelOptions) -> None:
        super().__init__()
        C = options.width
        self.token_embedding = nn.Embedding(vocabulary, C)
        self.position_embedding = nn.Embedding(options.context, C)
        self.blocks = nn.ModuleList(TorchBlock(C, options.heads) for _ in range(options.layers))
        self.final_norm = nn.LayerNorm(C, bias=False)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats of targets (B, T) given tokens (B, T)."""
        x = self.token_embedding(tokens) + self.position_embedding.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.final_norm(x), self.token_embedding.weight)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over the weights of our GPT."""
        renamed = {}
        for name, array in state.items():
            path, _, last = name.rpartition(".")
            renamed[f"{path}.weight" if last == "gain" else name] = array
        for layer in range(len(self.blocks)):
            attention = f"blocks.{layer}.attention"
            parts = [renamed.pop(f"{attention}.{part}.weight") for part in ("query", "key", "value")]
            renamed[f"blocks.{layer}.query_key_value.weight"] = np.concatenate(parts)
            renamed[f"blocks.{layer}.output.weight"] = renamed.pop(f"{attention}.output.weight")
            for part in ("expand", "contract"):
                renamed[f"blocks.{layer}.{part}.weight"] = renamed.pop(f"blocks.{layer}.feed_forward.{part}.weight")
        self.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in renamed.items()})

    def optimizer(self) -> torch.optim.Optimizer:
        """Return AdamW that decays matrices only, in PyTorch's fused form, its fastest on a CPU."""
        matrices = [p for p in self.parameters() if p.ndim >= 2]
        vectors = [p for p in self.parameters() if p.ndim < 2]
        groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=BETAS, fused=True)
