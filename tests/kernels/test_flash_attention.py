"""Flash attention against ops.attention in float64, on the host's tensor cores (tests/cuda_on_cpu) or on a GPU."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cuda_on_cpu.places import PLACES, needs_compiler, open_place
from tests.profiles import CI
from tinygrad_chat import ops
from tinygrad_chat.backend import Backend
from tinygrad_chat.kernels.cuda import attention, flash_attention, launch
from tinygrad_chat.kernels.cuda.slices import joined

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
TOLERANCE = 1e-2  # bfloat16 rounds to 4e-3, and so are the weights rounded of which the results are sums
WIDTHS = pytest.mark.parametrize("D", flash_attention.WIDTHS)


class Call(NamedTuple):
    """The sizes and options of a call."""

    B: int
    T: int
    S: int
    G: int
    shared: int
    causal: bool = True
    window: int | None = None

    @property
    def options(self) -> dict[str, Any]:
        return {"heads": self.G * self.shared, "causal": self.causal, "window": self.window}

    def inputs(self, D: int) -> list[np.ndarray]:
        """Draw query, key, value and d_out."""
        random, (queries, keys) = np.random.default_rng(0), (self.G * self.shared * D, self.G * D)
        shapes = (self.T, queries), (self.S, keys), (self.S, keys), (self.T, queries)
        return [random.normal(size=(self.B, *shape)).astype(BFLOAT16) for shape in shapes]


CALLS = {
    "one tile": Call(1, 64, 64, 1, 1),
    "several tiles and sequences": Call(2, 140, 140, 1, 1),
    "one query, as in decoding": Call(2, 1, 90, 2, 2),
    "queries behind a cache": Call(1, 33, 150, 1, 2),
    "shared heads": Call(1, 70, 70, 1, 2),
    "a window": Call(1, 140, 140, 1, 1, window=37),
    "a window behind a cache": Call(1, 70, 200, 1, 1, window=20),
    "a window of one": Call(1, 70, 70, 1, 1, window=1),
    "all see all": Call(1, 70, 130, 1, 1, causal=False),
    "a window of which nothing is later": Call(1, 70, 140, 1, 1, causal=False, window=20),
    "no queries": Call(1, 0, 5, 1, 1),
}


@pytest.fixture(scope="module", params=PLACES)
def device(request: pytest.FixtureRequest) -> Iterator[Backend]:
    with open_place(request.param) as backend:
        yield backend


@pytest.fixture
def host() -> Iterator[Backend]:
    """The stand-in, which counts what a GPU would do."""
    with open_place("host") as backend:
        yield backend


def compute(device: Backend, call: Call, inputs: list[Any]) -> list[np.ndarray]:
    """Return out, d_query, d_key and d_value."""
    *given, d_out = map(device.xp.asarray, inputs)
    out, backward = attention.attention(*given, **call.options)
    return [device.to_host(x).astype(np.float64) for x in (out, *backward(d_out))]


def expected(call: Call, inputs: list[np.ndarray]) -> list[np.ndarray]:
    *given, d_out = (x.astype(np.float64) for x in inputs)
    out, backward = ops.attention.reference(*given, **call.options)
    return [out, *backward(d_out)]


def expect_close(found: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    for mine, reference in zip(found, wanted, strict=True):
        assert mine.shape == reference.shape
        usual = np.sqrt(reference.size) / 4  # smaller gradients are differences of rounded numbers of that size
        assert np.linalg.norm(mine - reference) <= TOLERANCE * max(np.linalg.norm(reference), usual)


def counter(device: Backend, D: int, name: str) -> Any:
    """Return a variable of the emulation, once the kernels for heads of D channels have been compiled."""
    module = launch._module(device.xp, f"flash_attention_{D}.cu", BFLOAT16)
    return module.variable(name, ctypes.c_bool if name == "copies_arrive_at_once" else ctypes.c_longlong)


@CI
@WIDTHS
@pytest.mark.parametrize("name", CALLS)
def test_values_and_gradients_are_attention_s(device: Backend, D: int, name: str):
    inputs = CALLS[name].inputs(D)
    expect_close(compute(device, CALLS[name], inputs), expected(CALLS[name], inputs))


@CI
@WIDTHS
@given(st.data())
def test_values_and_gradients_are_attention_s_at_any_sizes(device: Backend, D: int, data: st.DataObject):
    S = data.draw(st.integers(1, 150), "S")
    call = Call(
        B=data.draw(st.integers(1, 2), "B"),
        T=data.draw(st.integers(1, S), "T"),
        S=S,
        G=data.draw(st.integers(1, 2), "G"),
        shared=data.draw(st.integers(1, 2), "shared"),
        causal=data.draw(st.booleans(), "causal"),
        window=data.draw(st.none() | st.integers(1, S + 5), "window"),
    )
    inputs = call.inputs(D)
    expect_close(compute(device, call, inputs), expected(call, inputs))


@WIDTHS
def test_slices_of_one_buffer_and_of_a_cache_are_read_where_they_lie(
    device: Backend, D: int, monkeypatch: pytest.MonkeyPatch
):
    call = Call(2, 70, 70, 2, 2)
    query, key, value, d_out = call.inputs(D)
    one = device.xp.asarray(np.concatenate([query, key, value], axis=2))
    parts = [one[:, :, : 4 * D], one[:, :, 4 * D : 6 * D], one[:, :, 6 * D :]]
    wanted = expected(call, [query, key, value, d_out])
    monkeypatch.setattr(flash_attention, "_readable", lambda x: x)  # and is not copied before
    expect_close(compute(device, call, [*parts, d_out]), wanted)
    _, backward = attention.attention(*parts, **call.options)
    together = joined(backward(device.xp.asarray(d_out)), -1)
    assert together.shape == one.shape  # and so are their gradients
    assert together.strides == one.strides
    cache = [device.xp.zeros((2, 100, 2 * D), BFLOAT16) for _ in range(2)]
    for kept, x in zip(cache, (key, value), strict=True):
        kept[:, :70] = device.xp.asarray(x)
    expect_close(compute(device, call, [query, *(x[:, :70] for x in cache), d_out]), wanted)


@WIDTHS
def test_rows_that_begin_anywhere_are_copied_first(device: Backend, D: int):
    call = Call(1, 20, 20, 1, 1)
    inputs = call.inputs(D)
    moved = [device.xp.zeros((1, 20, D + 3), BFLOAT16)[:, :, 3:] for _ in inputs]
    for place, x in zip(moved, inputs, strict=True):
        place[...] = device.xp.asarray(x)
    expect_close(compute(device, call, moved), expected(call, inputs))


@WIDTHS
def test_the_same_call_leaves_the_same_bits(device: Backend, D: int):
    call = CALLS["several tiles and sequences"]
    inputs = call.inputs(D)
    for first, again in zip(compute(device, call, inputs), compute(device, call, inputs), strict=True):
        np.testing.assert_array_equal(first, again)


@needs_compiler
@WIDTHS
@pytest.mark.parametrize("name", CALLS)
def test_copies_that_arrive_at_once_or_late_leave_the_same_bits_and_no_bank_is_asked_twice(
    host: Backend, D: int, name: str
):
    call, inputs = CALLS[name], CALLS[name].inputs(D)
    late = compute(host, call, inputs)
    at_once, conflicts = (counter(host, D, name) for name in ("copies_arrive_at_once", "bank_conflicts"))
    at_once.value, conflicts.value = True, 0
    try:
        for first, again in zip(late, compute(host, call, inputs), strict=True):
            np.testing.assert_array_equal(first, again)
    finally:
        at_once.value = False
    assert conflicts.value == 0


@needs_compiler
@WIDTHS
@pytest.mark.parametrize(
    ("call", "pairs"),
    [
        (Call(1, 256, 256, 1, 1), {64: 2 + 4, 128: 1 + 2 + 3 + 4}),
        (Call(1, 256, 256, 1, 1, causal=False), {64: 4 + 4, 128: 4 * 4}),
        (Call(1, 256, 256, 1, 1, window=65), {64: 2 + 3, 128: 1 + 2 + 2 + 2}),
    ],
    ids=["causal", "all", "window"],
)
def test_tiles_that_nobody_sees_are_left_out(host: Backend, D: int, call: Call, pairs: dict[int, int]):
    """`pairs` of a block of queries (128 of them, 64 for wide heads) and a tile of 64 keys."""
    *given, _ = map(host.xp.asarray, call.inputs(D))
    attention.attention(*given, **call.options)
    products = counter(host, D, "products")
    products.value = 0
    attention.attention(*given, **call.options)
    queries = flash_attention._tiles(D)["FORWARD_QUERIES"]
    assert products.value == pairs[D] * (queries // 16) * (64 // 8) * (D // 16) * 2  # scores, and the sum of values


@needs_compiler
def test_what_has_no_tiles_is_computed_with_all_weights(host: Backend, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(flash_attention, "attention", None)
    for D, kind, starts in ((32, BFLOAT16, None), (64, np.float32, None), (64, BFLOAT16, np.zeros((1, 5), np.int64))):
        x = host.xp.asarray(np.ones((1, 5, D), kind))
        starts = None if starts is None else host.xp.asarray(starts)
        out, _ = attention.attention(x, x, x, heads=1, document_starts=starts)
        np.testing.assert_array_equal(host.to_host(out).astype(np.float32), 1)
