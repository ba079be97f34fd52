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
    test_copies_and_products_at_once_or_late_leave_the_same_bits_and_no_bank_is_asked_twice as expect_no_difference,
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
from tinygrad_chat.kernels.cuda import flash_attention, launch

WAIT_AND_MEET = "receive_copies();\n        __syncthreads();"
MEET = "        __syncthreads();  // all have copied this tile and have read the one whose place the next takes\n"
FETCH = "        if (tile + 1 < end_tile) fetch_tile(tile + 1, stage ^ 1);\n"
FETCH_QUERIES = "        if (next_head < end_of_heads) fetch_queries(next_head, next, stage ^ 1);\n"

SWIZZLED = "(row * TOGETHER + 8 * (row % 8)) ^ 8 * (piece % 8)"

FAULTS = {
    "a wait too short, forward": ("receive_copies();", "wait_for_copies<1>();", 0),
    "a wait too short, forward, in the loop": ("receive_copies();", "wait_for_copies<1>();", 1),
    "a wait too short, for keys": ("receive_copies();", "wait_for_copies<1>();", 2),
    "no wait where no query sees a key": ("wait_for_copies<0>();  // the tiles", "// the tiles", 0),
    "a wait too short, for queries": ("receive_copies();", "wait_for_copies<1>();", 3),
    "no barrier behind the copies, forward": (WAIT_AND_MEET, "receive_copies();", 0),
    "no barrier behind the copies, for keys": (WAIT_AND_MEET, "receive_copies();", 1),
    "no barrier behind the copies, for queries": (WAIT_AND_MEET, "receive_copies();", 2),
    "the next copies before the barrier, forward": (f"{MEET}{FETCH}", f"{FETCH}{MEET}", 0),
    "the next copies before the barrier, for keys": (f"{MEET}{FETCH_QUERIES}", f"{FETCH_QUERIES}{MEET}", 0),
    "the next copies before the barrier, for queries": (f"{MEET}{FETCH}", f"{FETCH}{MEET}", 1),
    "no barrier before a tile is written": ("    __syncthreads();  // the tile may", "    // the tile may", 0),
    "the halves of a fragment swapped": ("columns.pairs[0], columns.pairs[1]", "columns.pairs[1], columns.pairs[0]", 0),
    "rows for columns": ("return load_transposed(", "return load_matrices(", 0),
    "no swizzling": (SWIZZLED, "row * TOGETHER + 8 * (piece % 8)", 0),
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
    "no delta, for queries": ("sum = minus_delta_here[d_scores.row(m, i)]", "sum = 0", 0),
    "keys' gradients beside their slice": ("rows_of(d_key, d_key_batch, d_key_row,", "rows_of(d_key, S * D, D,", 0),
    "values' gradients beside their slice": ("d_value_batch, d_value_row,", "d_value_batch, heads / shared * D,", 0),
    "queries' gradients beside their slice": (
        "d_query_batch, d_query_row, batch",
        "T * heads * D, d_query_row, batch",
        0,
    ),
    "no scale": ("key_sums.scale(scale);", "", 0),
}


SHOW = "#ifdef WGMMA\n    show_copies();\n#endif\n"
FAULTS_BY_WGMMA = {
    "copies that are not shown to products": (64, SHOW, "", 0),
    "copies shown before they arrive": (
        64,
        f"    wait_for_copies<0>();\n{SHOW}",
        f"{SHOW}    wait_for_copies<0>();\n",
        0,
    ),
    "no barrier behind the copies, forward": (64, WAIT_AND_MEET, "receive_copies();", 0),
    "no barrier behind the copies, for keys": (64, WAIT_AND_MEET, "receive_copies();", 1),
    "no barrier behind the copies, for queries": (64, WAIT_AND_MEET, "receive_copies();", 2),
    "the next copies before the barrier, forward": (64, f"{MEET}{FETCH}", f"{FETCH}{MEET}", 0),
    "the next copies before the barrier, for keys": (64, f"{MEET}{FETCH_QUERIES}", f"{FETCH_QUERIES}{MEET}", 0),
    "the next copies before the barrier, for queries": (64, f"{MEET}{FETCH}", f"{FETCH}{MEET}", 1),
    "no fence before products": (64, "    fence_products();\n", "", 0),
    "products that are in no group": (64, "    end_group_of_products();\n", "", 0),
    "products for which nobody waits": (64, "    wait_for_products<0>();\n", "", 0),
    "scores for which nobody waits, forward": (64, "finish_products(scores);", "", 0),
    "sums for which nobody waits, forward": (64, "finish_products(sums);", "", 0),
    "scores for which nobody waits, for keys": (64, "finish_products(weights, d_scores);", "", 0),
    "scores for which nobody waits, for queries": (64, "finish_products(weights, d_scores);", "", 1),
    "sums for which nobody waits, for keys": (64, "finish_products(value_sums, key_sums);", "", 0),
    "sums for which nobody waits, for queries": (64, "finish_products(sums);", "", 1),
    "an address in bytes": (64, "& 0x3ffff) / 16", "& 0x3ffff)", 0),
    "eight rows too near to eight others": (64, "EIGHT_ROWS / 16ull", "EIGHT_ROWS / 32ull", 0),
    "halves of rows too near to each other": (
        128,
        "16 * k * TOGETHER, N * TOGETHER)",
        "16 * k * TOGETHER, 8 * TOGETHER)",
        0,
    ),
    "the wrong half of a row": (128, "k / STEPS * (N * TOGETHER)", "k / STEPS * (8 * TOGETHER)", 0),
    "channels that overlap": (64, "k % STEPS * 16", "k % STEPS * 8", 0),
    "rows that overlap": (64, "16 * k * TOGETHER,", "8 * k * TOGETHER,", 0),
    "rows for columns": (64, "begin_product<true>", "begin_product<false>", 0),
    "columns for rows": (64, "begin_product<false>", "begin_product<true>", 0),
    "a descriptor without swizzling": (64, "= 1ull << 62", "= 0", 0),
    "another swizzling": (64, "= 1ull << 62", "= 2ull << 62", 0),
    "a tile without swizzling": (64, SWIZZLED, "row * TOGETHER + 8 * (piece % 8)", 0),
    "a tile where swizzling does not begin": (64, "<bfloat16*>(memory)}", "<bfloat16*>(memory) + 64}", 0),
    "the rows of a warp behind each other": (
        64,
        "16 * WARPS * m + threadIdx.x / WARP * 16 +",
        "threadIdx.x / WARP * 16 * M + 16 * m +",
        0,
    ),
    "the first 64 rows again": (64, "left, 16 * WARPS * m,", "left, 0,", 0),
}


def expect_all_right(host: Backend, D: int) -> None:
    for name in CALLS:
        expect_right(host, D, name)
        expect_no_difference(host, D, name)
    expect_growth_is_right(host, D)
    with pytest.MonkeyPatch.context() as patch:
        expect_slices_in_place(host, D, patch)


def expect_caught(place: str, D: int, right: str, wrong: str, which: int) -> None:
    """Plant a fault in the kernels that run at a place, instead of one of the occurrences of what is right."""
    with open_place(place) as host, pytest.MonkeyPatch.context() as patch:
        file = flash_attention.chosen_file(host.xp, D, BFLOAT16)
        parts = launch.source(file).split(right)
        assert len(parts) > which + 1
        broken = right.join(parts[: which + 1]) + wrong + right.join(parts[which + 1 :])
        patch.setattr(launch, "source", lambda file: broken)
        for cache in (launch._module, launch._function):
            cache.cache_clear()
        try:
            launch._module(host.xp, file, BFLOAT16)  # it compiles
            with pytest.raises((AssertionError, EmulationError)):
                expect_all_right(host, D)
        finally:
            for cache in (launch._module, launch._function):
                cache.cache_clear()


@needs_compiler
@DEEP
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_caught(fault: str):
    expect_caught("host", 64, *FAULTS[fault])


@needs_compiler
@DEEP
@pytest.mark.parametrize("fault", FAULTS_BY_WGMMA)
def test_a_fault_in_products_by_wgmma_is_caught(fault: str):
    expect_caught("host with wgmma", *FAULTS_BY_WGMMA[fault])
