"""How the CUDA kernels round to bfloat16: by integers, or on a GPU by an instruction, and both to the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.cuda_on_cpu.places import PLACES, open_place
from tinygrad_chat.backend import Backend
from tinygrad_chat.kernels.cuda.launch import FOLDER, flags

KERNELS = """
// x (N) -> rounded: by vectors of two, and by vectors of one.
extern "C" __global__ void stored(const float* x, REAL* in_twos, REAL* in_ones, long long N) {
    for (long long i = 2 * threadIdx.x; i < N; i += 2 * blockDim.x) {
        store<2>(in_twos + i, {x[i], x[i + 1]});
        store<1>(in_ones + i, {x[i]}), store<1>(in_ones + i + 1, {x[i + 1]});
    }
}

// How many of the floats whose bits are `begin` to `end` - 1 `pair` rounds otherwise than integers do, in either half.
extern "C" __global__ void differing(unsigned long long* count, long long begin, long long end) {
    const long long stride = static_cast<long long>(gridDim.x) * blockDim.x;
    unsigned long long found = 0;
    for (long long i = begin + blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x; i < end; i += stride) {
        const float x = __uint_as_float(static_cast<unsigned int>(i));
        const unsigned int rounded = nearest_bfloat16(x), one = nearest_bfloat16(1);
        found += pair(x, 1) != (rounded | one << 16);
        found += pair(1, x) != (one | rounded << 16);
    }
    if (found) atomicAdd(count, found);
}
"""
ALL = 1 << 32  # float32 numbers
PIECES = 16  # launches on a GPU: none of them takes long
OF_A_PIECE = {"host": 1 << 12, "gpu": ALL // PIECES}


@pytest.fixture(scope="module", params=PLACES)
def place(request: pytest.FixtureRequest) -> Iterator[tuple[str, Backend]]:
    with open_place(request.param) as backend:
        yield request.param, backend


def kernel(device: Backend, name: str) -> Any:
    code = (FOLDER / "common.cuh").read_text() + KERNELS
    return device.xp.RawModule(code=code, options=flags(np.dtype(ml_dtypes.bfloat16))).get_function(name)


def test_numbers_go_to_the_nearest_ties_to_even_and_every_nan_to_one(place: tuple[str, Backend]):
    _, device = place
    lower = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    x = (np.arange(1 << 16, dtype=np.uint32)[:, None] << 16 | lower).ravel().view(np.float32)
    there, outs = device.xp.asarray(x), [device.xp.empty(x.size, ml_dtypes.bfloat16) for _ in range(2)]
    kernel(device, "stored")((1,), (256,), (there, *outs, np.int64(x.size)))
    with np.errstate(all="ignore"):
        expected = np.where(np.isnan(x), 0x7FFF, x.astype(ml_dtypes.bfloat16).view(np.uint16))
    for out in outs:
        np.testing.assert_array_equal(device.to_host(out).view(np.uint16), expected)


def test_an_instruction_rounds_every_number_as_the_integers_do(place: tuple[str, Backend]):
    """All 2^32 of them on a GPU; the host, which has no such instruction, shows that the kernel runs."""
    name, device = place
    count, run = device.xp.zeros(1, np.uint64), kernel(device, "differing")
    for begin in range(0, ALL, ALL // PIECES):
        run((1024 if name == "gpu" else 1,), (256,), (count, np.int64(begin), np.int64(begin + OF_A_PIECE[name])))
    assert device.to_host(count)[0] == 0
