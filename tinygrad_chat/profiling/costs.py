"""The least that an op costs: the floating-point operations of its products, and the bytes it reads and writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tinygrad_chat.tensor import Tensor

PRODUCTS: dict[str, Callable[..., int]] = {
    "attention": lambda query, key, value: 4 * query.size * key.shape[1],
    "linear": lambda x, weight, bias=None: 2 * x.size * weight.shape[0],
    "linears": lambda x, *layers: sum(2 * x.size * len(each) for each in layers if each.ndim == 2),
    "matmul": lambda x, y: 2 * x.size * y.shape[-1],
}
"""FLOPs of the forward pass; the backward pass has twice as many. As in `flops_per_token`, the masked half of attention
counts."""


def forward_cost(name: str, inputs: Sequence[Any], out: Any) -> tuple[int, int]:
    """Return FLOPs and bytes of an op's forward pass; `out` is its result or a tuple of them. A view costs nothing."""
    arrays = [x for x in (x.data if isinstance(x, Tensor) else x for x in inputs) if hasattr(x, "nbytes")]
    if getattr(out, "base", None) is not None and any(out.base is x or out.base is x.base for x in arrays):
        return 0, 0
    if name == "embedding":  # reads only the rows of the table that are looked up
        return 0, 2 * out.nbytes + sum(x.nbytes for x in arrays[1:])
    flops = PRODUCTS[name](*arrays) if name in PRODUCTS else 0
    return flops, sum(x.nbytes for x in arrays) + _bytes_of(out)


def _bytes_of(out: Any) -> int:
    return sum(map(_bytes_of, out)) if isinstance(out, tuple) else out.nbytes


def backward_cost(forward: tuple[int, int], out: Any) -> tuple[int, int]:
    """Return FLOPs and bytes of an op's backward rule: it reads d_out and the inputs, and writes their gradients."""
    flops, moved = forward
    return 2 * flops, 0 if moved == 0 else 2 * moved - _bytes_of(out)
