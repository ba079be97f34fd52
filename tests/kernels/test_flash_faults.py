"""Faults planted in the kernels of flash attention: its tests catch each."""

from __future__ import annotations

import pytest

from tests.cuda_on_cpu.compiler import EmulationError
from tests.cuda_on_cpu.places import needs_compiler, open_place
from tests.kernels.test_flash_attention import (
    BFLOAT16,
    CALLS,
)
from tests.kernels.test_flash_attention import (
    test_copies_that_arrive_at_once_or_late_leave_the_same_bits_and_no_bank_is_asked_twice as expect_no_difference,
)
from tests.kernels.test_flash_attention import (
    test_scores_may_grow_from_tile_to_tile_faster_than_exponentials_have_room_for as expect_growth_is_right,
)
from tests.kernels.test_flash_attention import (
    test_slices_of_one_buffer_and_of_a_cache_are_read_where_they_lie as expect_slices_in_place,
)
from tests.kernels.test_flash_attention import (
    test_values_and_gradients_are_attention_s as expect_right,
)
from tests.profiles import DEEP
from tinygrad_chat.backend import Backend
from tinygrad_chat.kernels.cuda import launch

WAIT_AND_MEET = "wait_for_copies<0>();\n        __syncthreads();"
MEET = "        __syncthreads();  // all have copied this tile and have read the one whose place the next takes\n"
FETCH = "        if (tile + 1 < end_tile) fetch_tile(tile + 1, stage ^ 1);\n"
FETCH_QUERIES = "        if (next_head < end_of_heads) fetch_queries(next_head, next, stage ^ 1);\n"

FAULTS = {
    "a wait too short, forward": ("wait_for_copies<0>();", "wait_for_copies<1>();", 0),
    "a wait too short, forward, in the loop": ("wait_for_copies<0>();", "wait_for_copies<1>();", 1),
    "a wait too short, for keys": ("wait_for_copies<0>();", "wait_for_copies<1>();", 2),
    "no wait where no query sees a key": ("wait_for_copies<0>();  // the tiles", "// the tiles", 0),
    "a wait too short, for queries": ("wait_for_copies<0>();", "wait_for_copies<1>();", 4),
    "no barrier behind the copies, forward": (WAIT_AND_MEET, "wait_for_copies<0>();", 0),
    "no barrier behind the copies, for keys": (WAIT_AND_MEET, "wait_for_copies<0>();", 1),
    "no barrier behind the copies, for queries": (WAIT_AND_MEET, "wait_for_copies<0>();", 2),
    "the next copies before the barrier, forward": (f"{MEET}{FETCH}", f"{FETCH}{MEET}", 0),
    "the next copies before the barrier, for keys": (f"{MEET}{FETCH_QUERIES}", f"{FETCH_QUERIES}{MEET}", 0),
    "the next copies before the barrier, for queries": (f"{MEET}{FETCH}", f"{FETCH}{MEET}", 1),
    "no barrier before a tile is written": ("    __syncthreads();  // the tile may", "    // the tile may", 0),
    "the halves of a fragment swapped": ("columns.pairs[0], columns.pairs[1]", "columns.pairs[1], columns.pairs[0]", 0),
    "rows for columns": ("return load_transposed(", "return load_matrices(", 0),
    "no swizzling": ("(row * D + 8 * (row % 8)) ^ 8 * piece", "row * D + 8 * piece", 0),
    "a mask off by one": ("key <= last_key(query)", "key < last_key(query)", 0),
    "a window off by one": ("position(min(query, T - 1)) + 1 - window", "position(min(query, T - 1)) - window", 0),
    "a document that begins too late": (
        "max(first, int(starts[min(query, T - 1)]))",
        "max(first, int(starts[min(query, T - 1)]) + 1)",
        0,
    ),
    "a document that does not begin": ("return starts ? max(first,", "return false ? max(first,", 0),
    "the starts of another sequence": ("starts + batch * T", "starts", 0),
    "a document that ends too early": ("return warp_most(last) + 1;", "return warp_most(last);", 0),
    "a mask left out": ("key + keys - 1 <= position(query)", "key <= position(query)", 0),
    "no mask, forward": ("first_keys.of[row])) score = LOWEST", "first_keys.of[row])) score += 0", 0),
    "no mask, for keys": ("first_key)) score = LOWEST", "first_key)) score += 0", 0),
    "no mask, for queries": ("first_keys.of[row])) score = LOWEST", "first_keys.of[row])) score += 0", 1),
    "a document that does not begin, for keys": ("int(starts_here[numbers + column])", "0", 0),
    "a tile of documents without a mask, for keys": ("if (starts) last_first_key", "if (false) last_first_key", 0),
    "the numbers of another tile": (
        "numbers = stage * QUERIES_OF_TILE;",
        "numbers = (stage ^ 1) * QUERIES_OF_TILE;",
        0,
    ),
    "sums that do not shrink": ("x *= shrink[m][i / 2];", "", 0),
    "a total that does not shrink": ("total[m][half] *= shrink[m][half];", "", 0),
    "exponentials that overflow": ("constexpr float ROOM = 8;", "constexpr float ROOM = 1e9f;", 0),
    "no delta, for keys": ("sum = minus_delta_here[numbers + d_scores.column(n, i)]", "sum = 0", 0),
    "no delta, for queries": ("sum = minus_delta_here[first_row + d_scores.row(m, i)]", "sum = 0", 0),
    "keys' gradients beside their slice": ("rows_of(d_key, d_key_batch, d_key_row,", "rows_of(d_key, S * D, D,", 0),
    "values' gradients beside their slice": ("d_value_batch, d_value_row,", "d_value_batch, heads / shared * D,", 0),
    "queries' gradients beside their slice": (
        "d_query_batch, d_query_row, batch",
        "T * heads * D, d_query_row, batch",
        0,
    ),
    "no scale": ("key_sums.scale(scale);", "", 0),
}


def expect_all_right(host: Backend) -> None:
    for name in CALLS:
        expect_right(host, 64, name)
        expect_no_difference(host, 64, name)
    expect_growth_is_right(host, 64)
    with pytest.MonkeyPatch.context() as patch:
        expect_slices_in_place(host, 64, patch)


@needs_compiler
@DEEP
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_caught(fault: str, monkeypatch: pytest.MonkeyPatch):
    right, wrong, place = FAULTS[fault]
    text = launch.source("flash_attention_64.cu")
    before, *rest = text.split(right)
    assert len(rest) > place
    parts = [before, *rest]
    broken = right.join(parts[: place + 1]) + wrong + right.join(parts[place + 1 :])
    monkeypatch.setattr(launch, "source", lambda file: broken)
    for cache in (launch._module, launch._function):
        cache.cache_clear()
    try:
        with open_place("host") as host:
            launch._module(host.xp, "flash_attention_64.cu", BFLOAT16)  # it compiles
            with pytest.raises((AssertionError, EmulationError)):
                expect_all_right(host)
    finally:
        for cache in (launch._module, launch._function):
            cache.cache_clear()
