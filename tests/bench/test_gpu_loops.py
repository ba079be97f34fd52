"""The hot loops of `python -m bench gpu`: versions that take turns must agree, and are really different kernels."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import turns
from bench.gpu import loops
from bench.gpu.report import gather, page_of
from bench.gpu.stages import Record, record_of
from tests.cuda_on_cpu.device import DEVICE, standing_in
from tests.cuda_on_cpu.places import needs_compiler
from tinygrad_chat.backend import Backend, Compute
from tinygrad_chat.kernels.cuda import launch as launching

SMALL = (1, 48, 24, 128, 2)
NEW = {
    "attention": {"flash_attention", "flash_delta", "flash_backward_keys", "flash_backward_queries"},
    "cross_entropy": {"cross_entropy_at_once"},
    "add_layernorm": {"normalize_backward_with_columns"},
}


def loop_of(name: str) -> loops.Loop:
    return next(loop for loop in loops.draw_loops(*SMALL) if loop.op.name == name)


@needs_compiler
@pytest.mark.parametrize("name", ["attention", "cross_entropy", "add_layernorm", "gelu"])
def test_ours_what_it_was_before_and_the_reference_take_turns(name: str, tmp_path: Path):
    record = record_of("loops", tmp_path)
    with standing_in():
        for dtype in ("float32", "bfloat16"):
            loops.compare(loop_of(name), Compute.choose(DEVICE, dtype=dtype), 2, record)
    found = [(line["dtype"], line["version"], len(line["samples"])) for line in record.lines()]
    before = [("bfloat16", "ours before", 2)] if name in loops.BEFORE else []
    assert found == [("float32", "ours", 2), ("float32", "reference", 2), ("bfloat16", "ours", 2), *before]
    assert f"| {name} | float32 | ours | " in page_of(gather(tmp_path))


@needs_compiler
@pytest.mark.parametrize("name", NEW)
def test_what_a_loop_was_before_is_made_of_other_kernels(name: str, monkeypatch: pytest.MonkeyPatch):
    launched: list[set[str]] = []
    original, timed = launching._function, loops._seconds

    def watched(xp: Any, file: str, kernel: str, real: Any, shared: int) -> Any:
        launched[-1].add(kernel)
        return original(xp, file, kernel, real, shared)

    def turn(backend: Backend, run: Callable[[], Any]) -> float:
        launched.append(set())
        return timed(backend, run)

    monkeypatch.setattr(loops, "_seconds", turn)
    launched.append(set())
    monkeypatch.setattr(launching, "_function", watched)
    with standing_in():
        loops.compare(loop_of(name), Compute.choose(DEVICE, dtype="bfloat16"), 1, Record(Path(os.devnull)))
    _, ours, before = launched
    assert ours >= NEW[name]
    assert not before & NEW[name]
    assert before - ours


@needs_compiler
def test_attention_by_wgmma_takes_turns_with_attention_by_mma_sync(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    files, original, record = [], launching._function, record_of("loops", tmp_path)
    monkeypatch.setattr(launching, "_function", lambda xp, file, *rest: files.append(file) or original(xp, file, *rest))
    with standing_in(compute_capability="90"):
        loops.compare(loop_of("attention"), Compute.choose(DEVICE, dtype="bfloat16"), 1, record)
    assert [line["version"] for line in record.lines()] == ["ours", "ours before", "ours by mma.sync"]
    by_wgmma, before, by_mma = "flash_attention_wgmma_64.cu", "attention.cu", "flash_attention_64.cu"
    turns_taken = [file for file, _ in itertools.groupby(files)]
    assert turns_taken == 2 * [by_wgmma, before, by_mma]


@needs_compiler
def test_versions_that_do_not_agree_are_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    wrong = lambda x: (2 * x, lambda d_out: d_out)  # noqa: E731
    monkeypatch.setattr(loops, "find_kernel", lambda replaced, reference, array: wrong)
    record = record_of("loops", tmp_path)
    with standing_in(), pytest.raises(turns.BenchmarkError, match="reference has results of the norms"):
        loops.compare(loop_of("gelu"), Compute.choose(DEVICE, dtype="float32"), 1, record)
    assert record.lines() == []
