"""What nanochat adds to a GPT: streams mixed in learned proportions (karpathy/nanochat, docs/upstream_analysis.md)."""

from __future__ import annotations

from typing import Any

from tinygrad_chat.autograd import differentiable
from tinygrad_chat.backend import array_module
from tinygrad_chat.errors import ShapeError
from tinygrad_chat.ops.pointwise import sigmoid


@differentiable
def scaled_sum(x: Any, y: Any, y_scales: Any, x_scales: Any = None, *, layer: int = 0, subtract: bool = False):
    """x * x_scales[layer] + y * y_scales[layer]; `subtract` makes it a difference, and without x_scales x is unscaled.

    x and y (..., C), scales (L,), one per layer -> (..., C).
    """
    check_scaled_sum(x, y, y_scales, x_scales, layer)
    y_scale = -y_scales[layer] if subtract else y_scales[layer]
    scaled_x = x if x_scales is None else x * x_scales[layer]

    def backward(d_out):
        xp = array_module(x)
        here = xp.arange(len(y_scales)) == layer
        along_y = (d_out * y).sum()
        d_y_scales = xp.where(here, -along_y if subtract else along_y, 0)
        if x_scales is None:
            return d_out, d_out * y_scale, d_y_scales, None
        return d_out * x_scales[layer], d_out * y_scale, d_y_scales, xp.where(here, (d_out * x).sum(), 0)

    return scaled_x + y * y_scale, backward


def check_scaled_sum(x: Any, y: Any, y_scales: Any, x_scales: Any, layer: int) -> None:
    """Raise ShapeError unless y has x's shape and the scales that are given have a number at `layer`."""
    if y.shape != x.shape:
        raise ShapeError(f"scaled_sum: expected x and y of one shape, received {x.shape} and {y.shape}")
    for name, scales in (("x_scales", x_scales), ("y_scales", y_scales)):
        if scales is not None and not (scales.shape == y_scales.shape == (len(scales),) and 0 <= layer < len(scales)):
            raise ShapeError(f"scaled_sum: expected {name} (L,) with L above {layer}, received {scales.shape}")


@differentiable
def gated_sum(x: Any, y: Any, logits: Any, *, reach: float):
    """Add y to x through one gate per head, which opens from 0 to `reach`: x + reach * sigmoid(logit) * y.

    x and y (..., G D), G heads side by side, logits (..., G) -> (..., G D).
    """
    check_gated_sum(x, y, logits)
    heads = (*logits.shape, x.shape[-1] // logits.shape[-1])
    openness, sigmoid_backward = sigmoid.reference(logits)
    gate = (openness * reach)[..., None]
    y_heads = y.reshape(heads)

    def backward(d_out):
        d_heads = d_out.reshape(heads)
        d_openness = (d_heads * y_heads).sum(axis=-1) * reach
        return d_out, (d_heads * gate).reshape(y.shape), *sigmoid_backward(d_openness)

    return x + (gate * y_heads).reshape(y.shape), backward


def check_gated_sum(x: Any, y: Any, logits: Any) -> None:
    """Raise ShapeError unless x and y have the same shape and their channels divide evenly among the gates."""
    G = logits.shape[-1]
    if y.shape != x.shape or logits.shape[:-1] != x.shape[:-1] or G == 0 or x.shape[-1] % G:
        raise ShapeError(
            f"gated_sum: expected x and y (..., G D) and logits (..., G), received {x.shape}, {y.shape}, {logits.shape}"
        )


@differentiable
def smear(x: Any, weight: Any, scale: Any, *, before: Any = None):
    """Add a share of the previous position to each position: scale * sigmoid(x[t] . weight) * x[t - 1].

    x (B, T, C), weight (1, K) for the first K channels, scale (1,) -> (B, T, C). Nothing precedes the first position
    unless x continues an earlier piece, whose last position is `before` (B, 1, C).
    """
    check_smear(x, weight, scale, before)
    xp = array_module(x)
    K = weight.shape[1]
    first = xp.zeros_like(x[:, :1]) if before is None else before
    earlier = xp.concatenate([first, x[:, :-1]], axis=1)
    openness, sigmoid_backward = sigmoid.reference(x[..., :K] @ weight.T)  # (B, T, 1)

    def backward(d_out):
        along = (d_out * earlier).sum(axis=-1, keepdims=True)
        (d_logit,) = sigmoid_backward(scale * along)
        d_x = d_out.copy()
        d_x[:, :-1] += (scale * openness * d_out)[:, 1:]  # what position t gave to t + 1
        d_x[..., :K] += d_logit * weight
        d_weight = (d_logit * x[..., :K]).sum(axis=(0, 1))[None]
        return d_x, d_weight, (along * openness).sum().reshape(1)

    return x + scale * openness * earlier, backward


def check_smear(x: Any, weight: Any, scale: Any, before: Any) -> None:
    """Raise ShapeError unless the weight fits the channels of x (B, T, C), and `before`, if given, its rows."""
    fits = x.ndim == 3 and weight.ndim == 2 and len(weight) == 1 and weight.shape[1] <= x.shape[2]
    if not fits or scale.shape != (1,) or (before is not None and before.shape != (x.shape[0], 1, x.shape[2])):
        raise ShapeError(
            f"smear: expected x (B, T, C), weight (1, K) with K at most C, scale (1,) and before (B, 1, C) or None, "
            f"received {x.shape}, {weight.shape}, {scale.shape}, {None if before is None else before.shape}"
        )
