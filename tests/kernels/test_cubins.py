"""Kernels of one architecture's instructions: how their cubins are compiled, kept and found again, on a stand-in."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from tests.cuda_on_cpu.compiler import Nvrtc
from tests.cuda_on_cpu.device import DEVICE, standing_in
from tests.cuda_on_cpu.places import needs_compiler
from tests.kernels.test_flash_attention import CALLS, compute
from tinygrad_chat.errors import BackendError
from tinygrad_chat.kernels.cuda import cubins, flash_attention, launch

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
OPTIONS = ("-std=c++17", "-DREAL=float")
CODE = 'extern "C" __global__ void one(float* x) { x[0] = 1; }'


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cache folder of its own, and nothing compiled before or kept afterwards."""
    monkeypatch.setenv("TINYGRAD_CHAT_CACHE", str(tmp_path))
    caches = launch._module, launch._function, launch.compiles
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The options of each compilation."""
    seen, original = [], Nvrtc.compileProgram

    def watched(self: Nvrtc, prog: int, options: tuple[str, ...]) -> None:
        seen.append(tuple(options))
        original(self, prog, options)

    monkeypatch.setattr(Nvrtc, "compileProgram", watched)
    return seen


@needs_compiler
def test_a_cubin_is_compiled_once_for_its_architecture_as_cupy_compiles_others(compiled: list[tuple[str, ...]]):
    for _ in range(2):
        out = np.zeros(1, np.float32)
        cubins.load(DEVICE.xp, CODE, OPTIONS, "sm_90a").get_function("one")((1,), (1,), (out,))
        assert out == 1
    assert compiled == [(*OPTIONS, *cubins.ADDED_BY_CUPY, "-arch=sm_90a")]


def test_other_code_options_architectures_and_compilers_have_other_cubins(
    tmp_path: Path, compiled: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(DEVICE.xp, "RawModule", lambda path: None, raising=False)
    for code, options, architecture in (
        (CODE, OPTIONS, "sm_90a"),
        (CODE + " ", OPTIONS, "sm_90a"),
        (CODE, OPTIONS[:1], "sm_90a"),
        (CODE, OPTIONS, "sm_100a"),
    ):
        cubins.load(DEVICE.xp, code, options, architecture)
    monkeypatch.setattr(Nvrtc, "getVersion", lambda self: (13, 1))
    cubins.load(DEVICE.xp, CODE, OPTIONS, "sm_90a")
    assert len(compiled) == len(list((tmp_path / "cubins").glob("*.cubin"))) == 5


@needs_compiler
def test_where_nothing_is_installed_cubins_last_as_long_as_the_process(
    tmp_path: Path, compiled: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("TINYGRAD_CHAT_CACHE")
    monkeypatch.setitem(sys.modules, "platformdirs", None)  # cannot be imported
    cubins._temporary_folder.cache_clear()
    for _ in range(2):
        out = np.zeros(1, np.float32)
        cubins.load(DEVICE.xp, CODE, OPTIONS, "sm_90a").get_function("one")((1,), (1,), (out,))
        assert out == 1
    assert len(compiled) == 1
    temporary = cubins.folder()
    assert temporary.exists()
    cubins._temporary_folder().cleanup()  # as at the end of the process
    cubins._temporary_folder.cache_clear()
    assert not temporary.exists()
    assert not list(tmp_path.iterdir())


def test_what_the_compiler_refuses_is_told_in_its_words_and_its_program_is_destroyed():
    nvrtc = Nvrtc()
    with pytest.raises(BackendError, match=r"^NVRTC refuses it: wgmma: not for -arch=sm_90$"):
        cubins.compile_cubin(nvrtc, "#define WGMMA", (*OPTIONS, *cubins.ADDED_BY_CUPY, "-arch=sm_90"))
    assert not nvrtc._programs


@needs_compiler
@pytest.mark.parametrize("D", flash_attention.WIDTHS)
def test_only_compute_capability_9_0_has_attention_by_wgmma(D: int, monkeypatch: pytest.MonkeyPatch):
    files, original = [], launch._function
    monkeypatch.setattr(launch, "_function", lambda xp, file, *rest: files.append(file) or original(xp, file, *rest))
    call = CALLS["one tile"]
    by_mma, by_wgmma = f"flash_attention_{D}.cu", f"flash_attention_wgmma_{D}.cu"
    for compute_capability, expected in (("80", by_mma), ("90", by_wgmma), ("100", by_mma)):
        files.clear()
        with standing_in(compute_capability=compute_capability):
            compute(DEVICE, call, call.inputs(D))
        assert set(files) == {expected}


@needs_compiler
def test_where_wgmma_cannot_be_compiled_one_line_says_so_and_mma_sync_computes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(launch, "own_architecture", lambda file: "sm_90" if "wgmma" in file else None)
    with standing_in(compute_capability="90"):
        told = r"^flash_attention_wgmma_64\.cu cannot be .* wgmma: not for -arch=sm_90$"
        with pytest.warns(RuntimeWarning, match=told):
            assert flash_attention.chosen_file(DEVICE.xp, 64, BFLOAT16) == "flash_attention_64.cu"
        assert flash_attention.chosen_file(DEVICE.xp, 64, BFLOAT16) == "flash_attention_64.cu"  # no line more
