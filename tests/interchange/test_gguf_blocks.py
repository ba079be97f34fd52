"""Numbers in blocks, beside llama.cpp's own loops, written out one number at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinygrad_chat.interchange.gguf_blocks import NUMBER_OF, TYPES, packed

BLOCKED = [kind for kind in TYPES.values() if kind.numbers > 1]


def random_blocks(kind, count: int) -> np.ndarray:
    """Blocks of any bits, but for scales, which are numbers."""
    random = np.random.default_rng(len(kind.name) + kind.layout.itemsize)
    blocks: Any = np.frombuffer(random.bytes(count * kind.layout.itemsize), kind.layout).copy()
    for scale in {"d", "m"} & set(kind.layout.names):
        blocks[scale] = random.normal(size=count).astype(np.float16)
    return blocks


def six_bits(scales, j: int) -> tuple[int, int]:
    if j < 4:
        return scales[j] & 63, scales[j + 4] & 63
    return (scales[j + 4] & 15) | (scales[j - 4] >> 6) << 4, (scales[j + 4] >> 4) | (scales[j] >> 6) << 4


def number_at(name: str, b, at: int) -> float:
    """The number at a place of a block `b`, a record."""
    d = float(b["d"])
    m = float(b["m"]) if "m" in b.dtype.names else 0.0
    q = [int(each) for each in b["q"]]
    high = [int(each) for each in b["high"]] if "high" in b.dtype.names else []
    scales = [int(each) for each in b["scales"]] if "scales" in b.dtype.names else []
    if TYPES[NUMBER_OF[name]].numbers == 32:
        if name == "Q8_0":
            return d * q[at]
        nibble = q[at % 16] >> 4 * (at // 16) & 15
        fifth = (high[at // 8] >> at % 8 & 1) << 4 if high else 0
        return {"Q4_0": d * (nibble - 8), "Q4_1": d * nibble + m, "Q5_0": d * (nibble + fifth - 16)}.get(
            name, d * (nibble + fifth) + m
        )
    half, in_half, group = at // 128, at % 128, at // 16
    if name in ("Q2_K", "Q3_K"):
        two = q[32 * half + at % 32] >> 2 * (in_half // 32) & 3
        if name == "Q2_K":
            return d * (scales[group] & 15) * two - m * (scales[group] >> 4)
        bit = high[at % 32] >> (4 * half + in_half // 32) & 1
        low = scales[group] & 15 if group < 8 else scales[group - 8] >> 4
        scale = low | (scales[8 + group % 4] >> 2 * (group // 4) & 3) << 4
        return d * (scale - 32) * (two - (0 if bit else 4))
    if name == "Q6_K":
        four = q[64 * half + in_half % 64] >> 4 * (in_half // 64) & 15
        two = high[32 * half + in_half % 32] >> 2 * (in_half // 32) & 3
        return d * scales[group] * ((four | two << 4) - 32)
    four = q[32 * (at // 64) + at % 32] >> 4 * (at % 64 // 32) & 15
    fifth = (high[at % 32] >> at // 32 & 1) << 4 if high else 0
    scale, minimum = six_bits(scales, at // 32)
    return d * scale * (four + fifth) - m * minimum


@pytest.mark.parametrize("kind", BLOCKED, ids=lambda kind: kind.name)
def test_blocks_are_unpacked_as_llama_cpp_does(kind):
    blocks = random_blocks(kind, 3)
    found = kind.read(np.frombuffer(blocks.tobytes(), np.uint8), (3, kind.numbers))
    expected = [[number_at(kind.name, block, at) for at in range(kind.numbers)] for block in blocks]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    assert found.dtype == np.float32


@pytest.mark.parametrize("kind", [*BLOCKED, TYPES[30]], ids=lambda kind: kind.name)
def test_blocks_are_unpacked_as_gguf_does(kind):
    gguf = pytest.importorskip("gguf", reason="gguf, of the extra peers, is not installed")
    many = 20_000 if kind.numbers == 1 else 300
    halves = np.random.default_rng(1).integers(0, 1 << 14, many, "<u2")
    blocks = random_blocks(kind, many) if kind.numbers > 1 else halves
    raw = np.frombuffer(blocks.tobytes(), np.uint8)
    expected = gguf.quants.dequantize(raw.reshape(1, -1), gguf.GGMLQuantizationType[kind.name])
    np.testing.assert_allclose(kind.read(raw, expected.shape), expected, rtol=1e-6, atol=1e-7)


def test_a_long_array_is_unpacked_in_parts(monkeypatch: pytest.MonkeyPatch):
    kind = TYPES[NUMBER_OF["Q4_1"]]
    raw = np.frombuffer(random_blocks(kind, 10).tobytes(), np.uint8)
    whole = kind.read(raw, (10, 32))
    monkeypatch.setattr("tinygrad_chat.interchange.gguf_blocks.PART", 3)
    np.testing.assert_array_equal(kind.read(raw, (10, 32)), whole)


@pytest.mark.parametrize("name", ["F32", "F16", "BF16", "Q8_0"])
def test_numbers_are_stored_as_near_as_can_be(name):
    numbers = np.random.default_rng(3).normal(size=(4, 64)).astype(np.float32)
    numbers[0, :32] = 0
    kind = TYPES[NUMBER_OF[name]]
    found = kind.read(np.frombuffer(packed(numbers, name), np.uint8), numbers.shape)
    step = {"F32": 0, "F16": 2**-11, "BF16": 2**-8, "Q8_0": 1 / 220}[name]
    largest = np.abs(numbers.reshape(4, 2, 32)).max(axis=2).repeat(32, axis=1).reshape(4, 64)
    assert (np.abs(found - numbers) <= step * (largest if name == "Q8_0" else np.abs(numbers)) + 1e-6).all()
    if name == "BF16":  # to even where both are as near
        halfway = np.array([1 + 2**-8, 1 + 3 * 2**-8], np.float32)
        assert kind.read(np.frombuffer(packed(halfway, name), np.uint8), (2,)).tolist() == [1.0, 1 + 2**-6]


def test_numbers_are_rounded_as_gguf_does():
    gguf = pytest.importorskip("gguf", reason="gguf, of the extra peers, is not installed")
    numbers = np.random.default_rng(4).normal(size=(50, 64)).astype(np.float32)
    for name in ("BF16", "Q8_0"):
        expected = gguf.quants.quantize(numbers, gguf.GGMLQuantizationType[name])
        assert packed(numbers, name) == expected.tobytes()
