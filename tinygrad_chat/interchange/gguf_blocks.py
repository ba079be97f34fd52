"""GGUF's number formats: plain floats, and quantised blocks of a few bits per number with scales.

A block of 32 numbers has one scale and, in Q4_1 and Q5_1, a minimum. A block of 256 (the K formats) has 8 or 16
groups, whose scales are small integers times a common one. The layouts are those of llama.cpp's ggml-quants, written
as NumPy dtypes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

PART = 1 << 14  # blocks unpacked at a time, to keep temporary arrays small


@dataclass(frozen=True)
class BlockType:
    """A format of blocks of `numbers` numbers each: `layout` is a block's dtype, `unpack` turns N blocks into floats
    (N, numbers)."""

    name: str
    numbers: int
    layout: np.dtype
    unpack: Callable[[np.ndarray], np.ndarray]

    def bytes_of(self, numbers: int) -> int:
        """Return the bytes that so many numbers take, in whole blocks."""
        return numbers // self.numbers * self.layout.itemsize

    def read(self, content: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Return the bytes `content` as an array of floats: a view if NumPy has their type, else float32."""
        blocks = content.view(self.layout)
        if self.layout.names is None and self.name != "BF16":
            return blocks.reshape(shape)
        out = np.empty((len(blocks), self.numbers), np.float32)
        for start in range(0, len(blocks), PART):
            out[start : start + PART] = self.unpack(blocks[start : start + PART])
        return out.reshape(shape)


def _bits(packed: np.ndarray, shifts: Iterable[int], mask: int) -> np.ndarray:
    """Unpack bytes (..., K) into small integers (..., S, K) as floats, one row for each of S right shifts."""
    return ((packed[..., None, :] >> np.array(list(shifts), np.uint8)[:, None]) & mask).astype(np.float32)


def _nibbles(packed: np.ndarray) -> np.ndarray:
    return _bits(packed, (0, 4), 15)


def _scale(blocks: np.ndarray, field: str) -> np.ndarray:
    return blocks[field].astype(np.float32)[:, None]


def _bfloat16(blocks: np.ndarray) -> np.ndarray:
    return (blocks.astype(np.uint32) << 16).view(np.float32)[:, None]


def _q4_0(blocks: np.ndarray) -> np.ndarray:
    return _scale(blocks, "d") * (_nibbles(blocks["q"]).reshape(-1, 32) - 8)


def _q4_1(blocks: np.ndarray) -> np.ndarray:
    return _scale(blocks, "d") * _nibbles(blocks["q"]).reshape(-1, 32) + _scale(blocks, "m")


def _fifth_bits(blocks: np.ndarray) -> np.ndarray:
    return 16 * np.unpackbits(blocks["high"], axis=1, bitorder="little").astype(np.float32)


def _q5_0(blocks: np.ndarray) -> np.ndarray:
    return _scale(blocks, "d") * (_nibbles(blocks["q"]).reshape(-1, 32) + _fifth_bits(blocks) - 16)


def _q5_1(blocks: np.ndarray) -> np.ndarray:
    found = _nibbles(blocks["q"]).reshape(-1, 32) + _fifth_bits(blocks)
    return _scale(blocks, "d") * found + _scale(blocks, "m")


def _q8_0(blocks: np.ndarray) -> np.ndarray:
    return _scale(blocks, "d") * blocks["q"]


def _grouped(numbers: np.ndarray, scales: np.ndarray, minima: np.ndarray | None = None) -> np.ndarray:
    """Scale N blocks of 256 numbers: each of a block's G groups times its scale (N, G), less its minimum (N, G)."""
    count, groups = scales.shape
    found = numbers.reshape(count, groups, -1) * scales[..., None]
    return (found if minima is None else found - minima[..., None]).reshape(count, 256)


def _q2_k(blocks: np.ndarray) -> np.ndarray:
    scales, minima = np.moveaxis(_nibbles(blocks["scales"]), 1, 0)
    numbers = _bits(blocks["q"].reshape(-1, 2, 32), (0, 2, 4, 6), 3)
    return _grouped(numbers, _scale(blocks, "d") * scales, _scale(blocks, "m") * minima)


def _q3_k(blocks: np.ndarray) -> np.ndarray:
    low, high = _nibbles(blocks["scales"][:, :8]), _bits(blocks["scales"][:, 8:], (0, 2, 4, 6), 3)
    scales = low.reshape(-1, 16) + 16 * high.reshape(-1, 16) - 32
    numbers = _bits(blocks["q"].reshape(-1, 2, 32), (0, 2, 4, 6), 3).reshape(-1, 256)
    numbers += 4 * _bits(blocks["high"], range(8), 1).reshape(-1, 256) - 4
    return _grouped(numbers, _scale(blocks, "d") * scales)


def _six_bits(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unpack 8 scales and 8 minima of 6 bits each from 12 bytes; the bits of the last four of each are split."""
    first, second, third = (packed[:, start : start + 4] for start in (0, 4, 8))
    scales = np.concatenate([first & 63, (third & 15) | (first >> 6 << 4)], axis=1)
    minima = np.concatenate([second & 63, (third >> 4) | (second >> 6 << 4)], axis=1)
    return scales.astype(np.float32), minima.astype(np.float32)


def _q4_k(blocks: np.ndarray) -> np.ndarray:
    scales, minima = _six_bits(blocks["scales"])
    numbers = _nibbles(blocks["q"].reshape(-1, 4, 32))
    return _grouped(numbers, _scale(blocks, "d") * scales, _scale(blocks, "m") * minima)


def _q5_k(blocks: np.ndarray) -> np.ndarray:
    scales, minima = _six_bits(blocks["scales"])
    numbers = _nibbles(blocks["q"].reshape(-1, 4, 32)).reshape(-1, 256)
    numbers += 16 * _bits(blocks["high"], range(8), 1).reshape(-1, 256)
    return _grouped(numbers, _scale(blocks, "d") * scales, _scale(blocks, "m") * minima)


def _q6_k(blocks: np.ndarray) -> np.ndarray:
    numbers = _nibbles(blocks["q"].reshape(-1, 2, 64)).reshape(-1, 256)
    numbers += 16 * _bits(blocks["high"].reshape(-1, 2, 32), (0, 2, 4, 6), 3).reshape(-1, 256) - 32
    return _grouped(numbers, _scale(blocks, "d") * blocks["scales"])


def _as_stored(blocks: np.ndarray) -> np.ndarray:
    return blocks[:, None]


def _type(name: str, numbers: int, layout: object, unpack: Callable[[np.ndarray], np.ndarray]) -> BlockType:
    return BlockType(name, numbers, np.dtype(layout), unpack)  # pyright: ignore[reportArgumentType, reportCallIssue]


_D, _M = ("d", "<f2"), ("m", "<f2")
TYPES = {
    0: _type("F32", 1, "<f4", _as_stored),
    1: _type("F16", 1, "<f2", _as_stored),
    2: _type("Q4_0", 32, [_D, ("q", "u1", 16)], _q4_0),
    3: _type("Q4_1", 32, [_D, _M, ("q", "u1", 16)], _q4_1),
    6: _type("Q5_0", 32, [_D, ("high", "u1", 4), ("q", "u1", 16)], _q5_0),
    7: _type("Q5_1", 32, [_D, _M, ("high", "u1", 4), ("q", "u1", 16)], _q5_1),
    8: _type("Q8_0", 32, [_D, ("q", "i1", 32)], _q8_0),
    10: _type("Q2_K", 256, [("scales", "u1", 16), ("q", "u1", 64), _D, _M], _q2_k),
    11: _type("Q3_K", 256, [("high", "u1", 32), ("q", "u1", 64), ("scales", "u1", 12), _D], _q3_k),
    12: _type("Q4_K", 256, [_D, _M, ("scales", "u1", 12), ("q", "u1", 128)], _q4_k),
    13: _type("Q5_K", 256, [_D, _M, ("scales", "u1", 12), ("high", "u1", 32), ("q", "u1", 128)], _q5_k),
    14: _type("Q6_K", 256, [("q", "u1", 128), ("high", "u1", 64), ("scales", "i1", 16), _D], _q6_k),
    28: _type("F64", 1, "<f8", _as_stored),
    30: _type("BF16", 1, "<u2", _bfloat16),
}
"""The formats of a tensor's numbers, by GGUF's number for each."""

NUMBER_OF = {kind.name: number for number, kind in TYPES.items()}


def packed(array: np.ndarray, kind: str) -> bytes:
    """Return an array's bytes as F32, F16, BF16 or Q8_0, rounded to nearest. For Q8_0, rows must be whole blocks."""
    numbers = np.asarray(array, np.float32, order="C")
    if kind == "BF16":
        bits = numbers.view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2").tobytes()
    if kind != "Q8_0":
        return numbers.astype(TYPES[NUMBER_OF[kind]].layout).tobytes()
    rows = numbers.reshape(-1, 32)
    scales = np.abs(rows).max(axis=1, keepdims=True) / 127
    inverse = 1 / np.where(scales > 0, scales, np.inf)
    blocks = np.empty(len(rows), TYPES[NUMBER_OF[kind]].layout)
    steps = rows * inverse
    blocks["d"], blocks["q"] = scales[:, 0], np.sign(steps) * np.floor(np.abs(steps) + 0.5)
    return blocks.tobytes()
