"""Kernels for NVIDIA GPUs: the `.cu` files here, the launchers beside them, and products by cuBLAS.

Each has the signature of the op it replaces and is tested against it by tests/kernels/test_cuda.py, on a GPU or,
without one, on the host. They support float32 and bfloat16; arrays of another type run the op itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from tinygrad_chat import ops
from tinygrad_chat.kernels.cuda import (
    adamw,
    attention,
    cache,
    clipping,
    cross_entropy,
    dropout,
    embedding,
    linear,
    matmul,
    mixing,
    muon,
    normalization,
    pointwise,
    rotary,
    shape,
)
from tinygrad_chat.nn.cache import write_columns
from tinygrad_chat.optim.adamw import adamw_update
from tinygrad_chat.optim.clipping import norm_and_scale
from tinygrad_chat.optim.muon import update_matrices

REALS = ("float32", "bfloat16")


def _for_reals(replaced: Any, kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a kernel so that arrays of other or of mixed types run what it replaces."""
    reference = getattr(replaced, "reference", replaced)

    def fits(x: Any, y: Any) -> bool:
        return not hasattr(y, "dtype") or y.dtype == x.dtype or y.dtype.kind in "iu"

    @functools.wraps(kernel)
    def chosen(x: Any, *inputs: Any, **options: Any) -> Any:
        fitting = x.dtype.name in REALS and all(fits(x, y) for y in inputs)
        return (kernel if fitting else reference)(x, *inputs, **options)

    return chosen


KERNELS = {
    replaced: _for_reals(replaced, kernel)
    for replaced, kernel in {
        adamw_update: adamw.adamw_update,
        norm_and_scale: clipping.norm_and_scale,
        update_matrices: muon.update_matrices,
        write_columns: cache.write_columns,
        ops.add: pointwise.add,
        ops.add_layernorm: normalization.add_layernorm,
        ops.add_rmsnorm: normalization.add_rmsnorm,
        ops.attention: attention.attention,
        ops.cross_entropy: cross_entropy.cross_entropy,
        ops.dropout: dropout.dropout,
        ops.embedding: embedding.embedding,
        ops.gated_sum: mixing.gated_sum,
        ops.gelu: pointwise.gelu,
        ops.index: shape.index,
        ops.layernorm: normalization.layernorm,
        ops.linear: linear.linear,
        ops.linears: linear.linears,
        ops.matmul: matmul.matmul,
        ops.relu: pointwise.relu,
        ops.rmsnorm: normalization.rmsnorm,
        ops.rotary: rotary.rotary,
        ops.scaled_sum: mixing.scaled_sum,
        ops.smear: mixing.smear,
        ops.squared_relu: pointwise.squared_relu,
        ops.swiglu: pointwise.swiglu,
    }.items()
}
