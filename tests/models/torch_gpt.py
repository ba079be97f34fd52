"""The same GPT once more, written for PyTorch as one function of its weights: what models/gpt.py is measured by."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from tinygrad_chat.models.options import ModelOptions

State = dict[str, torch.Tensor]


def loss(state: State, tokens: torch.Tensor, targets: torch.Tensor, options: ModelOptions) -> torch.Tensor:
    """Mean cross-entropy in nats of targets (B, T) given tokens (B, T)."""
    x = state["token_embedding.weight"][tokens]
    if options.positions == "learned":
        x = x + state["position_embedding.weight"][: tokens.shape[1]]
    for layer in range(options.layers):
        part = f"blocks.{layer}"
        normalised = _norm(x, f"{part}.attention_norm", state, options)
        x = x + _attention(normalised, layer, f"{part}.attention", state, options)
        normalised = _norm(x, f"{part}.feed_forward_norm", state, options)
        x = x + _feed_forward(normalised, f"{part}.feed_forward", state, options)
    head = state["token_embedding.weight" if options.tied else "head.weight"]
    logits = _norm(x, "final_norm", state, options) @ head.T
    if options.soft_cap is not None:
        logits = options.soft_cap * torch.tanh(logits / options.soft_cap)
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def _linear(x: torch.Tensor, name: str, state: State) -> torch.Tensor:
    return F.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))


def _norm(x: torch.Tensor, name: str, state: State, options: ModelOptions) -> torch.Tensor:
    if options.norm == "none":
        return x
    gain = state[f"{name}.gain"]
    if options.norm == "rmsnorm":
        return F.rms_norm(x, gain.shape, gain, eps=1e-5)
    return F.layer_norm(x, gain.shape, gain, state.get(f"{name}.bias"), eps=1e-5)


def _feed_forward(x: torch.Tensor, name: str, state: State, options: ModelOptions) -> torch.Tensor:
    hidden = _linear(x, f"{name}.expand", state)
    if options.activation == "swiglu":
        hidden = F.silu(_linear(x, f"{name}.gate", state)) * hidden
    elif options.activation == "squared_relu":
        hidden = F.relu(hidden) ** 2
    else:
        hidden = F.gelu(hidden, approximate="tanh")
    return _linear(hidden, f"{name}.contract", state)


def _attention(x: torch.Tensor, layer: int, name: str, state: State, options: ModelOptions) -> torch.Tensor:
    B, T, C = x.shape
    D = options.head_width or C // options.heads

    def by_head(part: str) -> torch.Tensor:
        return _linear(x, f"{name}.{part}", state).view(B, T, -1, D).transpose(1, 2)

    query, key, value = (by_head(part) for part in ("query", "key", "value"))
    if options.qk_norm is not None:
        query, key = (options.qk_norm * F.rms_norm(part, (D,), eps=1e-5) for part in (query, key))
    if options.qk_gain:
        query, key = query * state[f"{name}.query_gain"], key * state[f"{name}.key_gain"]
    if options.positions == "rotary" and (layer + 1) % (options.no_rotary_every or layer + 2):
        query, key = _turned(query), _turned(key)
    repeats = options.heads // key.shape[1]
    age = torch.arange(T)[:, None] - torch.arange(T)
    visible = (age >= 0) & (age < (options.window or T))
    gathered = F.scaled_dot_product_attention(
        query, key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1), attn_mask=visible
    )
    return _linear(gathered.transpose(1, 2).flatten(-2), f"{name}.output", state)


def _turned(x: torch.Tensor) -> torch.Tensor:
    """Rotary positions by complex numbers."""
    T, D = x.shape[-2:]
    angles: Any = torch.outer(torch.arange(T, dtype=x.dtype), 10000.0 ** (-torch.arange(0, D, 2, dtype=x.dtype) / D))
    turn = torch.complex(angles.cos(), angles.sin())
    turned = torch.complex(x[..., : D // 2], x[..., D // 2 :]) * turn
    return torch.cat([turned.real, turned.imag], dim=-1)
