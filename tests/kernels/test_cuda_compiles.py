"""NVIDIA's compilers take every kernel, for each architecture, without a warning, a spilled register or an array on a
stack: nvcc, and NVRTC with the options that CuPy will give it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import nvrtc
from bench.kernels import architectures_of, compile_by_nvcc, compile_by_nvrtc, files
from tests.cuda_on_cpu.compiler import KERNEL
from tests.profiles import DEEP
from tinygrad_chat.errors import BackendError
from tinygrad_chat.kernels.cuda.launch import FOLDER, own_architecture, source

needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc, the compiler of the CUDA toolkit")
needs_nvrtc = pytest.mark.skipif(not nvrtc.is_installed(), reason="no NVRTC, of the extra nvrtc")
of_every_file = pytest.mark.parametrize("path", sorted(FOLDER.glob("*.cu")), ids=lambda path: path.stem)


@DEEP
@pytest.mark.parametrize(
    "compiled",
    [
        pytest.param(compile_by_nvcc, marks=needs_nvcc, id="nvcc"),
        pytest.param(compile_by_nvrtc, marks=needs_nvrtc, id="NVRTC"),
    ],
)
@pytest.mark.parametrize(("file", "real"), files())
def test_every_kernel_compiles_for_every_architecture(
    file: str, real: str, compiled: Callable[[str, str], list[dict[str, Any]]]
):
    rows = compiled(file, real)
    named = {name for name, _ in KERNEL.findall(re.sub(r"\s+", " ", source(file)))}
    if file == "pointwise.cu":
        named |= {name for op in ("gelu", "relu", "squared_relu") for name in (op, f"{op}_backward")}
    found = {(row["kernel"], row["real"], row["architecture"]) for row in rows}
    assert found == {(kernel, real, name) for kernel in named - {"name"} for name in architectures_of(file)}
    assert [row for row in rows if row["spilled"] or row["stack"]] == []


@DEEP
@pytest.mark.parametrize(
    ("compiled", "library"),
    [
        pytest.param(compile_by_nvcc, "nvcc", marks=needs_nvcc, id="nvcc"),
        pytest.param(compile_by_nvrtc, "NVRTC", marks=needs_nvrtc, id="NVRTC"),
    ],
)
def test_products_by_wgmma_that_would_wait_for_one_another_are_told(
    compiled: Callable[[str, str], list[dict[str, Any]]], library: str, monkeypatch: pytest.MonkeyPatch
):
    """The compiler only remarks on them: here sums are read while products go on."""
    code = source("flash_attention_wgmma_64.cu")
    hasty = code.replace("    wait_for_products<0>();", "    wait_for_products<1>();")
    assert hasty != code
    monkeypatch.setattr("bench.kernels.source", lambda file: hasty)
    with pytest.raises(BackendError, match=rf"(?s){library} .*wgmma.mma_async instructions are serialized"):
        compiled("flash_attention_wgmma_64.cu", "bfloat16")


@DEEP
@needs_nvrtc
@of_every_file
def test_no_check_of_the_emulation_is_left_in_what_a_gpu_runs(path: Path):
    architecture = own_architecture(path.name) or "sm_90"
    assert b"__assertfail" not in nvrtc.compile_cubin(source(path.name), np.dtype(np.float32), architecture)[0]


@DEEP
@needs_nvrtc
def test_what_nvrtc_refuses_or_warns_of_is_told(monkeypatch: pytest.MonkeyPatch):
    code = 'extern "C" __global__ void wrong(float* x) { assert(x); int unused; %s }'
    cubin, log = nvrtc.compile_cubin(code % "", np.dtype(np.float32), "sm_90")
    assert b"__assertfail" in cubin
    assert 'warning #177-D: variable "unused" was declared but never referenced' in log
    with pytest.raises(BackendError, match=r'^NVRTC refuses it: .*identifier "missing" is undefined'):
        nvrtc.compile_cubin(code % "missing();", np.dtype(np.float32), "sm_90")
    monkeypatch.setattr("bench.kernels.source", lambda file: code % "")
    with pytest.raises(BackendError, match=r'^some\.cu for float32: NVRTC warns: .*variable "unused"'):
        compile_by_nvrtc("some.cu", "float32")
