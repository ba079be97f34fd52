"""How many blocks a multiprocessor holds: known cases, and the blocks that the launchers really launch."""

from __future__ import annotations

from typing import Any

import pytest

from bench.kernels import files
from bench.occupancy import LAUNCHED, MULTIPROCESSORS, blocks_held, launched
from tests.catalogue import CATALOGUE
from tests.cuda_on_cpu.device import DEVICE, standing_in
from tests.cuda_on_cpu.places import HOSTS, needs_compiler
from tests.kernels.test_cuda import CORNERS, compare, drawn, loss_case, moved
from tests.kernels.test_cuda_muon import Stack
from tests.kernels.test_flash_attention import CALLS, compute
from tests.profiles import CI
from tinygrad_chat.backend import load_kernels
from tinygrad_chat.kernels.cuda import flash_attention
from tinygrad_chat.kernels.cuda import launch as launching
from tinygrad_chat.nn.cache import write_columns
from tinygrad_chat.optim.clipping import norm_and_scale
from tinygrad_chat.optim.muon import update_matrices


@pytest.mark.parametrize(
    ("threads", "registers", "shared", "blocks"),
    [
        (256, 32, 0, (8, 8, 8)),  # all 2,048 threads
        (1024, 32, 0, (2, 2, 2)),
        (32, 16, 0, (32, 32, 32)),  # the most blocks
        (256, 33, 0, (6, 6, 6)),  # 1,280 registers of a warp: 12 warps in a quarter
        (256, 64, 0, (4, 4, 4)),
        (256, 65, 0, (3, 3, 3)),  # 7 warps in a quarter, 28 in all
        (256, 128, 0, (2, 2, 2)),
        (512, 128, 0, (1, 1, 1)),
        (128, 255, 0, (2, 2, 2)),
        (96, 168, 0, (4, 4, 4)),  # 12 warps, 3 of a block: blocks are not bound to a quarter
        (32, 88, 0, (20, 20, 20)),  # 5 warps in a quarter, though there is room for 23 in all registers
        (1024, 65, 0, (0, 0, 0)),  # it cannot be launched
        (64, 32, 48 << 10, (3, 4, 4)),
        (64, 32, 16 << 10, (9, 13, 13)),
        (64, 32, 163 << 10, (1, 1, 1)),  # as much as a block may have on an A100
        (64, 32, 227 << 10, (0, 1, 1)),
    ],
)
def test_the_blocks_of_a_multiprocessor_are_bound_by_threads_registers_and_shared_memory(
    threads: int, registers: int, shared: int, blocks: tuple[int, ...]
):
    found = [blocks_held(name, threads=threads, registers=registers, shared=shared) for name in MULTIPROCESSORS]
    assert found == list(blocks)


@needs_compiler
@CI
def test_the_blocks_that_are_counted_with_are_those_that_are_launched(monkeypatch: pytest.MonkeyPatch):
    seen: dict[tuple[str, str], set[tuple[int, int]]] = {}
    original = launching._function

    def watched(xp: Any, file: str, name: str, real: Any, shared: int) -> Any:
        function = original(xp, file, name, real, shared)

        def run(grid: Any, block: Any, arguments: Any, shared_mem: int) -> None:
            seen.setdefault((file, name), set()).add((block[0], shared_mem))
            function(grid, block, arguments, shared_mem=shared_mem)

        return run

    monkeypatch.setattr(launching, "_function", watched)
    with standing_in():
        for name, case in CORNERS.values():
            compare(DEVICE, CATALOGUE[name], case, "bfloat16")
        compare(DEVICE, CATALOGUE["cross_entropy"], loss_case(2, 512 * 8)[1], "bfloat16")  # the largest block
        (key, keys), (value, values) = ([moved(DEVICE, drawn(1, T, 8), "bfloat16") for T in (1, 3)] for _ in range(2))
        load_kernels("cuda")[write_columns](key, value, keys, values, 2)
        for R, K in ((8, 16), (16, 8)):
            Stack.draw(2, R, K).update(load_kernels("cuda")[update_matrices], DEVICE)
        load_kernels("cuda")[norm_and_scale](moved(DEVICE, drawn(5000), "float32"), 1.0)
    for compute_capability in HOSTS.values():
        with standing_in(compute_capability=compute_capability):
            for D in flash_attention.WIDTHS:
                call = CALLS["several tiles and sequences"]
                compute(DEVICE, call, call.inputs(D))
    assert {file for file, _ in seen} == {file for file, _ in files()} - {"adamw.cu"}  # no op
    assert seen.keys() >= LAUNCHED.keys()
    assert {place: max(blocks) for place, blocks in seen.items()} == {place: launched(*place) for place in seen}
