"""The ops of the GPT in PyTorch, each with the inputs and options of ours of the same name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.configurations import CLIP, Configuration
from bench.peers.torch_gpt import TorchGPT
from bench.peers.weights import renamed

Differentiated = tuple[Tensor, Callable[[Tensor], tuple[Tensor | None, ...]]]


def _attention(query: Tensor, key: Tensor, value: Tensor, *, heads: int) -> Tensor:
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(query.shape)


def _rotary(x: Tensor, *, cosine: np.ndarray, sine: np.ndarray) -> Tensor:
    c, s = (torch.from_numpy(angle)[:, None] for angle in (cosine, sine))  # (T, 1, D / 2)
    first, second = x.unflatten(-1, (-1, 2, c.shape[-1])).unbind(-2)  # each (B, T, H, D / 2)
    return torch.stack((first * c - second * s, first * s + second * c), dim=-2).reshape(x.shape)


def _chain(x: Tensor) -> Tensor:
    for _ in range(1000):
        x = x.view_as(x)  # as good as nothing, and a node
    return x


OPS: dict[str, Callable[..., Tensor]] = {
    "linear": F.linear,
    "attention": _attention,
    "layernorm": lambda x, gain: F.layer_norm(x, gain.shape, gain),
    "rmsnorm": lambda x, gain: F.rms_norm(x, gain.shape, gain, eps=1e-5),
    "gelu": lambda x: F.gelu(x, approximate="tanh"),
    "squared_relu": lambda x: F.relu(x).square(),
    "swiglu": lambda gate, up: F.silu(gate) * up,
    "embedding": lambda table, tokens: F.embedding(tokens, table),
    "cross_entropy": lambda logits, targets, *, overwrite: F.cross_entropy(logits.flatten(0, 1), targets.flatten()),
    "softmax": lambda x: F.softmax(x, dim=-1),
    "rotary": _rotary,
    "1,000 nodes": _chain,
}


def run(name: str, inputs: tuple[np.ndarray, ...], options: dict[str, Any]) -> Callable[[], Differentiated]:
    """Return a function that runs an op forward -> its result and its backward rule: d_out -> gradients of the inputs,
    None for integers."""
    tensors = [torch.from_numpy(array) for array in inputs]
    leaves = [tensor.requires_grad_() for tensor in tensors if tensor.is_floating_point()]

    def forward() -> Differentiated:
        out = OPS[name](*tensors, **options)
        return out.detach(), lambda d_out: torch.autograd.grad(out, leaves, d_out)

    return forward


def update(
    configuration: Configuration, weights: Mapping[str, np.ndarray], gradient: Mapping[str, np.ndarray]
) -> tuple[Callable[[], None], Callable[[], None], Callable[[], dict[str, np.ndarray]]]:
    """Return three functions: set the gradient, clip it and step AdamW, and tell the weights."""
    model = TorchGPT(configuration, weights)
    optimizer = model.optimizer()
    drawn = {name: torch.from_numpy(array) for name, array in renamed(gradient).items()}
    parameters = dict(model.named_parameters())

    def prepare() -> None:
        for name, parameter in parameters.items():
            parameter.grad = drawn[name].clone()

    def step() -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()

    return prepare, step, lambda: {name: parameter.detach().numpy() for name, parameter in parameters.items()}
