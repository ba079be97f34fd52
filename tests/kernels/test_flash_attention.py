"""Flash attention against ops.attention in float64, on the host's tensor cores (tests/cuda_on_cpu) or on a GPU."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest import mock

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cuda_on_cpu.places import HOSTS, PLACES, needs_compiler, open_place
from tests.profiles import CI
from tinygrad_chat import ops
from tinygrad_chat.backend import Backend
from tinygrad_chat.kernels.cuda import attention, flash_attention, launch
from tinygrad_chat.kernels.cuda.slices import joined
from tinygrad_chat.ops.attention import visible_positions

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
    documents: tuple[int, ...] = ()
    """The positions at which documents begin, beside 0; one earlier in each further sequence."""

    def options(self, xp: Any) -> dict[str, Any]:
        seen = {"heads": self.G * self.shared, "causal": self.causal, "window": self.window}
        return {**seen, "document_starts": xp.asarray(self.starts())} if self.documents else seen

    def starts(self) -> np.ndarray:
        """For each query of each sequence, where its document begins: (B, T)."""
        begins = np.array([[0, *(max(begin - b, 0) for begin in self.documents)] for b in range(self.B)])
        positions = np.arange(self.S - self.T, self.S)[:, None]
        return np.where(begins[:, None] <= positions, begins[:, None], 0).max(axis=-1, initial=0)

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
    "documents": Call(2, 200, 200, 1, 1, documents=(3, 64, 65, 150)),
    "documents behind a cache": Call(2, 70, 200, 1, 2, documents=(90, 131, 199)),
    "a window in documents": Call(1, 140, 140, 1, 1, window=37, documents=(70, 100)),
    "documents of which nothing is later": Call(1, 70, 140, 1, 1, causal=False, documents=(80, 130)),
}

AT_ONCE = {"80": [(True, False)], "90": [(True, False), (False, True), (True, True)]}
"""Compute capability -> whether copies arrive at once, and products, of which only those of wgmma may be late."""


BY_MMA = "gpu by mma.sync"  # even where it has wgmma


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("host with wgmma", marks=needs_compiler),
        *PLACES,
        pytest.param(BY_MMA, marks=pytest.mark.gpu),
    ],
)
def device(request: pytest.FixtureRequest) -> Iterator[Backend]:
    place, with_wgmma = ("gpu", ()) if request.param == BY_MMA else (request.param, flash_attention.WITH_WGMMA)
    with open_place(place) as backend, mock.patch.object(flash_attention, "WITH_WGMMA", with_wgmma):
        yield backend


@pytest.fixture(params=HOSTS)
def host(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The stand-in, which counts what a GPU would do."""
    with open_place(request.param) as backend:
        yield backend


def compute(device: Backend, call: Call, inputs: list[Any]) -> list[np.ndarray]:
    """Return out, d_query, d_key and d_value."""
    *given, d_out = map(device.xp.asarray, inputs)
    out, backward = flash_attention.attention(*given, **call.options(device.xp))
    return [device.to_host(x).astype(np.float64) for x in (out, *backward(d_out))]


def expected(call: Call, inputs: list[np.ndarray]) -> list[np.ndarray]:
    *given, d_out = (x.astype(np.float64) for x in inputs)
    out, backward = ops.attention.reference(*given, **call.options(np))
    return [out, *backward(d_out)]


def expect_close(found: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    for mine, reference in zip(found, wanted, strict=True):
        assert mine.shape == reference.shape
        usual = np.sqrt(reference.size) / 4  # smaller gradients are differences of rounded numbers of that size
        assert np.linalg.norm(mine - reference) <= TOLERANCE * max(np.linalg.norm(reference), usual)


def counter(device: Backend, D: int, name: str) -> Any:
    """Return a variable of the emulation, once the kernels for heads of D channels have been compiled."""
    module = launch._module(device.xp, flash_attention.chosen_file(device.xp, D, BFLOAT16), BFLOAT16)
    return module.variable(name, ctypes.c_bool if name.endswith("_at_once") else ctypes.c_longlong)


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
        documents=data.draw(st.just(()) | st.lists(st.integers(0, S), max_size=4).map(tuple), "documents"),
    )
    inputs = call.inputs(D)
    expect_close(compute(device, call, inputs), expected(call, inputs))


@WIDTHS
def test_scores_may_grow_from_tile_to_tile_faster_than_exponentials_have_room_for(device: Backend, D: int):
    call = Call(1, 200, 200, 1, 1)
    query, key, *others = call.inputs(D)
    growing = (key * np.linspace(0, 50, call.S)[:, None]).astype(BFLOAT16)
    inputs = [query, growing, *others]
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
    _, backward = attention.attention(*parts, **call.options(device.xp))
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
def test_copies_and_products_at_once_or_late_leave_the_same_bits_and_no_bank_is_asked_twice(
    host: Any, D: int, name: str
):
    call, inputs = CALLS[name], CALLS[name].inputs(D)
    late = compute(host, call, inputs)
    switches = [counter(host, D, name) for name in ("copies_arrive_at_once", "products_run_at_once")]
    conflicts = counter(host, D, "bank_conflicts")
    conflicts.value = 0
    for at_once in AT_ONCE[host.compute_capability]:
        try:
            for switch, on in zip(switches, at_once, strict=True):
                switch.value = on
            for first, again in zip(late, compute(host, call, inputs), strict=True):
                np.testing.assert_array_equal(first, again)
        finally:
            for switch in switches:
                switch.value = False
    assert conflicts.value == 0


@needs_compiler
@WIDTHS
@pytest.mark.parametrize(
    ("call", "pairs"),
    [
        (Call(1, 256, 256, 1, 1), {64: 2 + 4, 128: 1 + 2 + 3 + 4}),
        (Call(1, 256, 256, 1, 1, causal=False), {64: 4 + 4, 128: 4 * 4}),
        (Call(1, 256, 256, 1, 1, window=65), {64: 2 + 3, 128: 1 + 2 + 2 + 2}),
        (Call(1, 256, 256, 1, 1, documents=(128,)), {64: 2 + 2, 128: 1 + 2 + 1 + 2}),
        (Call(1, 256, 256, 1, 1, documents=(70, 200)), {64: 2 + 3, 128: 1 + 2 + 2 + 3}),
    ],
    ids=["causal", "all", "window", "documents", "documents within tiles"],
)
def test_tiles_that_nobody_sees_are_left_out(host: Backend, D: int, call: Call, pairs: dict[int, int]):
    """`pairs` of a block of queries (128 of them, 64 for wide heads) and a tile of 64 keys."""
    *given, _ = map(host.xp.asarray, call.inputs(D))
    attention.attention(*given, **call.options(host.xp))
    products = counter(host, D, "products")
    products.value = 0
    attention.attention(*given, **call.options(host.xp))
    queries = flash_attention._tiles(D)["FORWARD_QUERIES"]
    assert products.value == pairs[D] * (queries // 16) * (64 // 8) * (D // 16) * 2  # scores, and the sum of values


def tiles_seen(visible: np.ndarray, rows: int, columns: int) -> int:
    """Count, for all blocks of so many rows, the tiles of columns from the first to the last that one of them sees."""
    count = 0
    for begin in range(0, len(visible), rows):
        seen = np.flatnonzero(visible[begin : begin + rows].any(axis=0))
        count += seen[-1] // columns - seen[0] // columns + 1
    return count


@needs_compiler
@WIDTHS
@pytest.mark.parametrize(
    "name", ["several tiles and sequences", "a window", "documents", "a window in documents", "all see all"]
)
def test_tiles_that_nobody_sees_are_left_out_of_the_backward_pass(host: Backend, D: int, name: str):
    call = CALLS[name]._replace(B=1)
    *given, d_out = map(host.xp.asarray, call.inputs(D))
    _, backward = attention.attention(*given, **call.options(host.xp))
    products = counter(host, D, "products")
    products.value = 0
    backward(d_out)
    seen = {"causal": call.causal, "window": call.window, "document_starts": call.starts()}
    visible, tiles = visible_positions(np, call.T, call.S, **seen).reshape(call.T, call.S), flash_attention._tiles(D)
    keys, queries_of_tile = tiles["KEYS_OF_BLOCK"], tiles["QUERIES_OF_TILE"]
    queries, keys_of_tile = tiles["QUERIES_OF_BLOCK"], tiles["KEYS_OF_TILE"]
    of_keys = tiles_seen(visible.T, keys, queries_of_tile) * keys * queries_of_tile * 4  # weights, d_scores, two sums
    of_queries = tiles_seen(visible, queries, keys_of_tile) * queries * keys_of_tile * 3  # weights, d_scores, a sum
    assert products.value == (of_keys + of_queries) * D // (16 * 8 * 16)


@needs_compiler
def test_what_has_no_tiles_is_computed_with_all_weights(host: Backend, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(flash_attention, "attention", None)
    for D, kind in ((32, BFLOAT16), (64, np.float32)):
        x = host.xp.asarray(np.ones((1, 5, D), kind))
        out, _ = attention.attention(x, x, x, heads=1)
        np.testing.assert_array_equal(host.to_host(out).astype(np.float32), 1)
