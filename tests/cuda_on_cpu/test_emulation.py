"""The emulation itself: what CUDA promises holds, and what CUDA leaves undefined is told."""

from __future__ import annotations

import ctypes
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.cuda_on_cpu.compiler import COMPILER, EmulationError, RawModule, both_orders, with_margins
from tests.cuda_on_cpu.device import DEVICE, no_waiting, standing_in
from tinygrad_chat import Tensor

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler to run kernels on the host with")

CODE = """
extern "C" __global__ void places(long long* out) {
    const int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    const int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    out[block * blockDim.x * blockDim.y * blockDim.z + thread] = 1000 * block + thread;
}
extern "C" __global__ void reversed(const float* x, float* out) {
    __shared__ float all[64];
    all[threadIdx.x] = x[blockIdx.x * 64 + threadIdx.x];
    __syncthreads();
    out[blockIdx.x * 64 + threadIdx.x] = all[63 - threadIdx.x];
}
extern "C" __global__ void stale(float* out) {
    __shared__ float all[64];
    if (blockIdx.x == 0) all[threadIdx.x] = 1;
    __syncthreads();
    out[blockIdx.x * 64 + threadIdx.x] = all[threadIdx.x];
}
extern "C" __global__ void exchanged(float* sums, float* firsts, long long* votes) {
    float x = threadIdx.x;
    for (int distance = 16; distance > 0; distance /= 2) x += __shfl_xor_sync(0xffffffff, x, distance);
    sums[threadIdx.x] = x;
    firsts[threadIdx.x] = __shfl_sync(0xffffffff, float(threadIdx.x), 0);
    votes[threadIdx.x] = __ballot_sync(0xffffffff, threadIdx.x % 2 == 0);
}
extern "C" __global__ void counted(long long* total) { atomicAdd(total, 1LL); }
extern "C" __global__ void divided() { if (threadIdx.x < 7) __syncthreads(); }
extern "C" __global__ void lonely() { if (threadIdx.x < 7) __shfl_xor_sync(0xffffffff, 1.0f, 1); }
extern "C" __global__ void partial() { __shfl_xor_sync(0x0000ffff, 1.0f, 1); }
extern "C" __global__ void beside(float* out, long long size) { if (threadIdx.x <= size) out[threadIdx.x] = 0; }
extern "C" __global__ void hurried(float* out) {
    __shared__ float one;
    for (int round = 0; round < 2; ++round) {
        if (threadIdx.x == 63 * round) one = round;
        __syncthreads();  // and none before the next round overwrites what some have yet to read
        out[64 * round + threadIdx.x] = one;
    }
}
extern "C" __global__ void multiplied(const unsigned short* left, const unsigned short* right, float* out) {
    DYNAMIC_SHARED(memory);
    unsigned short* rows = reinterpret_cast<unsigned short*>(memory);  // 16 of left, then 16 of right, 16 numbers each
    for (int i = threadIdx.x; i < 256; i += 32) rows[i] = left[i], rows[256 + i] = right[i];
    __syncthreads();
    const int lane = threadIdx.x, row = lane % 16, column = lane / 16 * 8;
    const Fragment a = load_matrices(rows + 16 * row + column), b = load_transposed(rows + 256 + 16 * row + column);
    for (int n = 0; n < 2; ++n) {
        float sums[4] = {};
        multiply(sums, a, b.pairs[2 * n], b.pairs[2 * n + 1]);
        for (int i = 0; i < 4; ++i) out[16 * (lane / 4 + 8 * (i / 2)) + 8 * n + 2 * (lane % 4) + i % 2] = sums[i];
    }
}
extern "C" __global__ void copied(const float* x, float* early, float* late) {
    DYNAMIC_SHARED(memory);
    float* there = reinterpret_cast<float*>(memory) + 4 * threadIdx.x;
    copy_async(there, x + 4 * threadIdx.x, threadIdx.x < 20);
    end_group_of_copies();
    end_group_of_copies();
    wait_for_copies<2>();
    early[threadIdx.x] = there[1];
    wait_for_copies<1>();
    late[threadIdx.x] = there[1];
}
extern "C" __global__ void copied_numbers(const float* x, float* early, float* late) {
    DYNAMIC_SHARED(memory);
    float* there = reinterpret_cast<float*>(memory) + 4 * threadIdx.x;
    there[0] = there[2] = 0;  // beside it nothing is written
    copy_number_async(there + 1, x + 4 * threadIdx.x + 1, threadIdx.x < 20);
    end_group_of_copies();
    wait_for_copies<1>();
    early[threadIdx.x] = there[1];
    wait_for_copies<0>();
    late[threadIdx.x] = there[0] + there[1] + there[2];
}
extern "C" __global__ void askew(const float* x) {
    DYNAMIC_SHARED(memory);
    copy_number_async(reinterpret_cast<float*>(memory + 2), x);
}
extern "C" __global__ void forgotten(const float* x) {
    DYNAMIC_SHARED(memory);
    copy_async(memory, x, true);
    end_group_of_copies();
}
extern "C" __global__ void outside(const float* x) { copy_async(const_cast<float*>(x), x, true); }
extern "C" __global__ void behind() {
    DYNAMIC_SHARED(memory);
    memory[32 + threadIdx.x] = 0;
}
// A product by wgmma of 64 x 16 with 16 x 128: rows of left and columns of right are 128 bytes apart; right by its rows
// has 64 columns together, and the others 2048 bytes further. `missing` is left out, `bits` are changed.
extern "C" __global__ void multiplied_by_four_warps(const float* left, const float* right, float* out,
                                                    long long by_rows, long long missing, long long bits) {
    DYNAMIC_SHARED(memory);
    const int lines = by_rows ? 32 : 128;  // of right, of 128 bytes
    for (int i = threadIdx.x; i < (64 + lines) * 8; i += 128) {
        const int row = i / 8, piece = i % 8;
        const float* from = (row < 64 ? left + row * 32 : right + (row - 64) * 32) + piece * 4;
        copy_async(memory + row * 128 + 16 * (piece ^ row % 8), from);
    }
    end_group_of_copies();
    wait_for_copies<0>();
    if (missing != 1) show_copies();
    __syncthreads();
    const unsigned long long swizzled = 1ull << 62 | 64ull << 32 | (2048ull / 16) << 16;
    const unsigned long long a = swizzled ^ bits | shared_address(memory) / 16, b = swizzled | 64 * 128 / 16;
    float sums[16][4] = {};
    if (missing != 2) fence_products();
    if (by_rows) begin_product<true>(sums, a, b);
    else begin_product<false>(sums, a, b);
    const float early = sums[0][0];
    if (missing != 3) end_group_of_products();
    if (missing != 4) wait_for_products<0>();
    const int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4, column = 2 * (threadIdx.x % 4);
    for (int n = 0; n < 16; ++n)
        for (int i = 0; i < 4; ++i) out[128 * (row + 8 * (i / 2)) + 8 * n + column + i % 2] = sums[n][i];
    if (early == early) out[0] = 0.5f;
}
extern "C" __global__ void contested(float* out) { out[blockIdx.x / 2] = blockIdx.x; }
extern "C" __global__ void overheard(const float* x, float* out) { out[blockIdx.x] = x[blockIdx.x] + out[0]; }
extern "C" __global__ void doubled(float* x) { x[blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z)] *= 2; }
extern "C" __global__ void checked() { CHECK(threadIdx.x != 3); }
"""


@pytest.fixture(scope="module")
def module() -> RawModule:
    return RawModule(code=CODE, options=())


def run(module: RawModule, name: str, grid: Any, block: Any, *arguments: Any) -> None:
    module.get_function(name)(grid, block, arguments)


@pytest.mark.profile("ci")
def test_every_thread_of_a_grid_runs_once_in_its_place(module: RawModule):
    out = np.zeros(24 * 30, np.int64)
    run(module, "places", (2, 3, 4), (5, 3, 2), out)
    np.testing.assert_array_equal(out, (1000 * np.arange(24)[:, None] + np.arange(30)).ravel())


@pytest.mark.profile("ci")
def test_shared_memory_is_complete_after_a_barrier(module: RawModule):
    x, out = np.random.default_rng(0).normal(size=(2, 3, 64)).astype(np.float32)
    run(module, "reversed", (3,), (64,), x, out)
    np.testing.assert_array_equal(out, x[:, ::-1])


def test_shared_memory_of_the_last_block_is_no_longer_there(module: RawModule):
    out = np.zeros((2, 64), np.float32)
    run(module, "stale", (2,), (64,), out)
    assert np.all(out[0] == 1)
    assert np.isnan(out[1]).all()


def test_a_barrier_that_is_missing_shows(module: RawModule):
    out = np.zeros((2, 2, 64), np.float32)
    for block in out:
        run(module, "hurried", (2,), (64,), block)
    assert np.any(out[:, 0] != 0)


def test_lanes_of_a_warp_exchange_and_vote(module: RawModule):
    sums, firsts, votes = np.zeros(64, np.float32), np.ones(64, np.float32), np.zeros(64, np.int64)
    run(module, "exchanged", (1,), (64,), sums, firsts, votes)
    np.testing.assert_array_equal(sums, np.repeat([np.arange(32).sum(), np.arange(32, 64).sum()], 32))
    np.testing.assert_array_equal(firsts, np.repeat([0, 32], 32))
    np.testing.assert_array_equal(votes, 0x55555555)


def test_atomics_lose_nothing(module: RawModule):
    total = np.zeros(1, np.int64)
    run(module, "counted", (7,), (33,), total)
    assert total == 231


@pytest.mark.profile("ci")
def test_tensor_cores_multiply_matrices_that_lie_in_shared_memory(module: RawModule):
    random = np.random.default_rng(0)
    left, right = (random.normal(size=(16, 16)).astype(ml_dtypes.bfloat16) for _ in range(2))
    out, conflicts = np.zeros((16, 16), np.float32), module.variable("bank_conflicts", ctypes.c_longlong)
    conflicts.value = 0
    bits = left.view(np.uint16), right.view(np.uint16)
    module.get_function("multiplied")((1,), (32,), (*bits, out), shared_mem=1024)
    np.testing.assert_allclose(out, left.astype(np.float32) @ right.astype(np.float32), atol=1e-5)
    assert conflicts.value == 8 * 4  # rows of 32 bytes: of eight at once, two share each bank


@pytest.mark.profile("ci")
@pytest.mark.parametrize("kernel", ["copied", "copied_numbers"])
@pytest.mark.parametrize("at_once", [False, True])
def test_a_copy_arrives_when_it_is_waited_for_or_at_once(module: RawModule, kernel: str, at_once: bool):
    x = np.arange(128, dtype=np.float32)
    early, late = np.zeros((2, 32), np.float32)
    switch = module.variable("copies_arrive_at_once", ctypes.c_bool)
    switch.value = at_once
    try:
        module.get_function(kernel)((1,), (32,), (x, early, late), shared_mem=512)
    finally:
        switch.value = False
    copied = np.where(np.arange(32) < 20, 4 * np.arange(32) + 1, 0)
    np.testing.assert_array_equal(late, copied)
    np.testing.assert_array_equal(early, copied if at_once else np.full(32, np.nan))


@pytest.mark.parametrize(
    ("name", "arguments", "shared", "message"),
    [
        ("forgotten", (np.zeros(4, np.float32),), 512, "copies for which nobody has waited"),
        ("outside", (np.zeros(4, np.float32),), 512, "a place outside of the block's shared memory"),
        ("askew", (np.zeros(4, np.float32),), 512, "a place that is not at 4 bytes"),
        ("behind", (), 32, "a write behind the block's shared memory"),
        ("behind", (), 49153, "49153 bytes of shared memory that it was not told of"),
    ],
)
def test_what_shared_memory_does_not_allow_is_told(
    module: RawModule, name: str, arguments: Any, shared: int, message: str
):
    with pytest.raises(EmulationError, match=f"^{name}: .*{message}"):
        module.get_function(name)((1,), (32,), arguments, shared_mem=shared)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("divided", "a barrier that not all threads of the block reach"),
        ("lonely", "exchange that not all of its lanes reach"),
        ("partial", "exchange of a part of a warp is not emulated"),
        ("checked", "check failed: threadIdx.x != 3"),
    ],
)
def test_what_is_undefined_is_told(module: RawModule, name: str, message: str):
    with pytest.raises(EmulationError, match=f"^{name}: .*{message}"):
        run(module, name, (1,), (32,))


def test_an_assertion_that_a_gpu_would_spend_time_on_is_refused():
    code = 'extern "C" __global__ void asserted() { assert(threadIdx.x < 32); }'
    with pytest.raises(EmulationError, match="assert"):
        RawModule(code=code, options=())


def multiply_by_four_warps(module: RawModule, by_rows: bool, *, missing: int = 0, bits: int = 0) -> tuple[Any, Any]:
    """Return what the kernel leaves, and what it should."""
    random = np.random.default_rng(0)
    left, right = (random.integers(-3, 4, (n, 64)).astype(ml_dtypes.bfloat16) for n in (64, 32 if by_rows else 128))
    out, kernel = np.zeros((64, 128), np.float32), module.get_function("multiplied_by_four_warps")
    options = map(np.int64, (by_rows, missing, bits))
    kernel((1,), (128,), (aligned(left), aligned(right), out, *options), shared_mem=(64 + len(right)) * 128)
    depth = np.concatenate([right[:16], right[16:]], axis=1) if by_rows else right[:, :16].T
    return out, left[:, :16].astype(np.float32) @ depth.astype(np.float32)


def aligned(x: np.ndarray) -> np.ndarray:
    """Return a copy, as pairs of numbers, from which 16 bytes may be copied at once."""
    pairs = x.view(np.float32)
    copy = with_margins(pairs)
    copy[...] = pairs
    return copy


@pytest.mark.profile("ci")
@pytest.mark.parametrize("by_rows", [True, False])
def test_four_warps_multiply_what_descriptors_say(module: RawModule, by_rows: bool):
    found, wanted = multiply_by_four_warps(module, by_rows)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("missing", "message"),
    [(2, "a product that was begun without a fence"), (3, "nobody has waited"), (4, "nobody has waited")],
)
def test_a_product_of_four_warps_without_its_fence_group_or_wait_is_told(module: RawModule, missing: int, message: str):
    with pytest.raises(EmulationError, match=message):
        multiply_by_four_warps(module, True, missing=missing)


def test_four_warps_do_not_see_copies_that_nobody_has_shown(module: RawModule):
    assert np.isnan(multiply_by_four_warps(module, True, missing=1)[0]).all()


@pytest.mark.parametrize(
    ("bits", "message"),
    [
        (-1 << 62, "a layout other than that swizzled by 128 bytes"),
        (1 << 49, "a descriptor with other bits set"),
        (8, "a factor that does not begin where swizzling does"),
        (0x2000, "a factor outside of the block's shared memory"),
    ],
)
def test_a_descriptor_that_describes_nothing_is_told(module: RawModule, bits: int, message: str):
    with pytest.raises(EmulationError, match=message):
        multiply_by_four_warps(module, True, bits=bits)


@pytest.mark.parametrize(("name", "arrays"), [("contested", 1), ("overheard", 2)])
def test_two_blocks_that_meet_in_one_place_are_told(module: RawModule, name: str, arrays: int):
    """Where both write, and where one reads what another writes."""
    memory = np.ones((arrays, 6), np.float32)
    with both_orders(), pytest.raises(EmulationError, match=f"^{name}: its result depends on the order in which"):
        run(module, name, (4,), (1,), *memory)


def test_blocks_that_keep_apart_leave_memory_in_both_orders_as_in_one(module: RawModule):
    x = np.arange(24, dtype=np.float32)
    with both_orders() as compared:
        run(module, "doubled", (2, 3, 4), (1,), x)
        run(module, "checked", (1,), (3,))
    np.testing.assert_array_equal(x, 2 * np.arange(24))
    assert compared == {"doubled"}


def test_a_write_beside_an_array_is_told(module: RawModule):
    out = with_margins(np.empty(20, np.float32))
    run(module, "beside", (1,), (32,), out, np.int64(19))
    with pytest.raises(EmulationError, match=r"wrote beside an array of shape \(20,\)"):
        run(module, "beside", (1,), (32,), out, np.int64(20))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones((4, 4), np.float32).T, np.int64(1)), "that the kernel would not see"),
        ((np.ones(4, np.float32), 1), "int is passed in a size that depends on chance"),
        ((np.ones(4, np.float32), np.float32(1)), "arguments pf for a kernel that takes pq"),
        ((np.ones(4, np.float32),), "arguments p for a kernel that takes pq"),
    ],
)
def test_arguments_that_a_gpu_would_misread_are_refused(module: RawModule, arguments: Any, message: str):
    with pytest.raises(EmulationError, match=message):
        run(module, "beside", (1,), (1,), *arguments)


@pytest.mark.parametrize(
    "ask",
    [
        float,
        bool,
        int,
        range,
        lambda x: f"{x:.3f}",
        lambda x: x.tobytes(),
        lambda x: x.reshape(1).nonzero(),
        lambda x: x.item(),
        lambda x: x.tolist(),
        DEVICE.to_host,
        lambda x: DEVICE.synchronize(),
        lambda x: x[x > 0],
        lambda x: DEVICE.xp.flatnonzero(x),
        lambda x: Tensor(x).item(),
    ],
)
def test_waiting_is_told_only_where_it_is_forbidden(ask: Any):
    with standing_in():
        x = DEVICE.xp.asarray(np.ones((), np.int64 if ask is range else np.float32))
        ask(x)
        with no_waiting(), pytest.raises(AssertionError, match="the host waits for the device"):
            ask(x)
