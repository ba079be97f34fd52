"""The measured GPT in PyTorch: pre-norm blocks, queries, keys and values in one product, fused attention and AdamW."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.configurations import BETAS, CLIP, LEARNING_RATE, WEIGHT_DECAY, Configuration
from bench.peers.weights import renamed


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
        return self.finish(x, F.scaled_dot_product_attention(*self.project(x), is_causal=True))

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, T, C) -> query, key and value, each (B, H, T, D)."""
        B, T, C = x.shape
        projected = self.query_key_value(self.attention_norm(x)).view(B, T, 3, self.heads, C // self.heads)
        query, key, value = projected.permute(2, 0, 3, 1, 4)
        return query, key, value

    def finish(self, x: Tensor, gathered: Tensor) -> Tensor:
        """x (B, T, C) and what attention gathered (B, H, T, D) -> (B, T, C)."""
        x = x + self.output(gathered.transpose(1, 2).reshape(x.shape))
        hidden = F.gelu(self.expand(self.feed_forward_norm(x)), approximate="tanh")
        return x + self.contract(hidden)


class TorchGPT(nn.Module):
    """The same model as `tinygrad_chat.GPT` of this configuration, with the weights of ours."""

    def __init__(self, configuration: Configuration, weights: Mapping[str, np.ndarray]) -> None:
        super().__init__()
        options, C = configuration.options, configuration.options.width
        self.token_embedding = nn.Embedding(configuration.vocabulary, C)
        self.position_embedding = nn.Embedding(options.context, C)
        self.blocks = nn.ModuleList(TorchBlock(C, options.heads) for _ in range(options.layers))
        self.final_norm = nn.LayerNorm(C, bias=False)
        self.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in renamed(weights).items()})

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats of targets (B, T) given tokens (B, T)."""
        x = self.token_embedding(tokens) + self.position_embedding.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.final_norm(x), self.token_embedding.weight)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def optimizer(self) -> torch.optim.Optimizer:
        """Return AdamW that decays matrices only, in PyTorch's fused form, its fastest on a CPU."""
        matrices = [p for p in self.parameters() if p.ndim >= 2]
        vectors = [p for p in self.parameters() if p.ndim < 2]
        groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=BETAS, fused=True)


def training_step(
    configuration: Configuration,
    weights: Mapping[str, np.ndarray],
    *,
    compiled: bool = False,
    bfloat16: bool = False,
    device: str = "cpu",
) -> Callable[[np.ndarray, np.ndarray], Tensor]:
    """Return one training step on tokens and targets (B, T) -> loss, a Tensor on the device."""
    model = TorchGPT(configuration, weights).to(device)
    optimizer = model.optimizer()
    forward = torch.compile(model) if compiled else model

    def step(tokens: np.ndarray, targets: np.ndarray) -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
            loss = forward(torch.from_numpy(tokens).to(device), torch.from_numpy(targets).to(device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        return loss.detach()

    return step
