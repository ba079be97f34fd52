"""Which of its attentions PyTorch takes for a call: flash, cuDNN's, memory-efficient, or plain products (math)."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.attention import SDPBackend


def chosen_attention(
    device: str, dtype: Any, *, heads: int, context: int, head_width: int, masked: bool = False
) -> str:
    """Return what `scaled_dot_product_attention` chooses in training: causal, or with a mask of its own if `masked`."""
    query = torch.empty(1, heads, context, head_width, device=device, dtype=dtype, requires_grad=True)
    mask = torch.ones(context, context, dtype=torch.bool, device=device) if masked else None
    try:
        choose: Any = vars(torch)["_fused_sdp_choice"]  # what scaled_dot_product_attention itself asks; it is private
        choice = choose(query, query, query, mask, 0.0, is_causal=not masked)
        return SDPBackend(choice).name.lower().replace("_", " ")
    except Exception as error:  # what is measured must not depend on it
        return f"attention, not known which: {type(error).__name__}"
