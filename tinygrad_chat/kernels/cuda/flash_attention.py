"""Flash attention on tensor cores: no score is ever written to memory (flash_attention.cuh, flash_backward.cuh).

Products are by wgmma where a GPU has it, and by mma.sync elsewhere: the same kernels over two kinds of tiles. Wgmma has
never run on a GPU yet.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinygrad_chat.autograd import Unshared
from tinygrad_chat.backend import array_module
from tinygrad_chat.kernels.cuda.launch import FOLDER, WARP, compiles, contiguous, launch
from tinygrad_chat.kernels.cuda.slices import empty_neighbours

WIDTHS = (64, 128)
"""The channels of a head for which there are tiles."""

WITH_WGMMA = ("90",)
"""The compute capabilities whose GPUs have wgmma. Without them all products are by mma.sync."""

WARPS = 4  # of a block, as in tiles.cuh
PIECE = 16  # bytes that are copied at once: rows begin at a multiple of it


def attention(
    query: Any, key: Any, value: Any, *, heads: int, causal: bool, window: int | None, document_starts: Any = None
):
    """`ops.attention` in bfloat16, for heads of one of `WIDTHS` channels.

    The arrays may be slices of one buffer. Their gradients are, if they have the same rows. It needs tensor cores with
    bfloat16: compute capability 8.0.
    """
    (B, T), S, D = query.shape[:2], key.shape[1], query.shape[2] // heads
    xp, real, shared = array_module(query), query.dtype, query.shape[2] // key.shape[2]
    file, tiles = chosen_file(xp, D, real), _tiles(D)
    inputs = [_readable(x) for x in (query, key, value)]
    starts = None if document_starts is None else contiguous(document_starts, np.int64)
    settings = (T, S, heads, shared, causal, min(window or S, S), *_strides(*inputs), 1 / math.sqrt(D))

    def run(name: str, blocks: tuple[int, int, int], size: int, *arrays: Any, strides: Sequence[int] = ()) -> None:
        given = (*inputs, starts, *arrays, *settings, *strides)
        launch(file, name, real, blocks, *given, threads=WARP * WARPS, shared=size)

    def blocks_of(length: int, each: str, heads: int) -> tuple[int, int, int]:
        return -(-length // tiles[each]), heads, B

    def room(own: int, tile: int, numbers: int) -> int:
        """Return the bytes of rows that a block keeps, of two pairs of tiles, and of numbers of 4 bytes."""
        return real.itemsize * D * (own + 4 * tile) + 4 * numbers

    out, log2_sums = xp.empty(query.shape, real), xp.empty((B, heads, T), np.float32)
    queries = tiles["FORWARD_QUERIES"]
    run(
        "flash_attention",
        blocks_of(T, "FORWARD_QUERIES", heads),
        room(queries, tiles["FORWARD_KEYS"], queries),
        *(out, log2_sums),
    )

    def backward(d_out: Any):
        d_out = contiguous(d_out, real)
        d_query, d_key, d_value = empty_neighbours(inputs)
        minus_delta = xp.empty_like(log2_sums)
        launch(
            file,
            "flash_delta",
            real,
            -(-minus_delta.size // WARPS),
            out,
            d_out,
            minus_delta,
            T,
            heads,
            minus_delta.size,
            threads=WARP * WARPS,
        )
        queries_of_tile, queries_of_block = tiles["QUERIES_OF_TILE"], tiles["QUERIES_OF_BLOCK"]
        run(
            "flash_backward_keys",
            blocks_of(S, "KEYS_OF_BLOCK", heads // shared),
            room(2 * tiles["KEYS_OF_BLOCK"], queries_of_tile, 8 * queries_of_tile),
            *(d_out, log2_sums, minus_delta, d_key, d_value),
            strides=_strides(d_key, d_value),
        )
        run(
            "flash_backward_queries",
            blocks_of(T, "QUERIES_OF_BLOCK", heads),
            room(2 * queries_of_block, tiles["KEYS_OF_TILE"], 3 * queries_of_block),
            *(d_out, log2_sums, minus_delta, d_query),
            strides=_strides(d_query),
        )
        return Unshared((d_query, d_key, d_value))

    return out, backward


def has_wgmma(xp: Any) -> bool:
    """Return whether products are by wgmma on the current device, if their kernels can be compiled."""
    return xp.cuda.Device().compute_capability in WITH_WGMMA


def chosen_file(xp: Any, D: int, real: Any) -> str:
    """Return the file of the kernels for heads of D channels on the current device."""
    by_wgmma = f"flash_attention_wgmma_{D}.cu"
    return by_wgmma if has_wgmma(xp) and compiles(xp, by_wgmma, real) else f"flash_attention_{D}.cu"


def _strides(*arrays: Any) -> list[int]:
    """Return how many elements the batches and the rows of each array are apart."""
    return [stride // x.itemsize for x in arrays for stride in x.strides[:2]]


@functools.cache
def _tiles(D: int) -> dict[str, int]:
    """Return the sizes of blocks and tiles, as the kernels have them."""
    text = (FOLDER / f"flash_attention_{D}.cu").read_text()
    return {name: int(number) for name, number in re.findall(r"constexpr int (\w+) = (\d+);", text)}


def _readable(x: Any) -> Any:
    """Return x, copied unless each of its rows is contiguous and begins at a multiple of 16 bytes."""
    whole = x.shape[2] == 1 or x.strides[2] == x.itemsize
    aligned = x.data.ptr % PIECE == 0 and all(stride >= 0 and stride % PIECE == 0 for stride in x.strides[:2])
    return x if whole and aligned else contiguous(x, x.dtype)
