"""NVIDIA's compiler takes every kernel, for each architecture, without a warning and without spilling a register."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from bench.kernels import ARCHITECTURES, compile_one, reals_of
from tests.cuda_on_cpu.compiler import KERNEL
from tests.profiles import DEEP
from tinygrad_chat.kernels.cuda.launch import FOLDER, source

pytestmark = pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc, the compiler of the CUDA toolkit")


FILES = [(path.name, real) for path in sorted(FOLDER.glob("*.cu")) for real in reals_of(path.name)]


@DEEP
@pytest.mark.parametrize(("file", "real"), FILES)
def test_every_kernel_compiles_for_every_architecture(file: str, real: str, tmp_path: Path):
    rows = compile_one(tmp_path, file, real)
    named = set(KERNEL.findall(re.sub(r"\s+", " ", source(file))))
    if file == "pointwise.cu":
        named |= {name for op in ("gelu", "relu", "squared_relu") for name in (op, f"{op}_backward")}
    found = {(row["kernel"], row["real"], row["architecture"]) for row in rows}
    assert found == {(kernel, real, name) for kernel in named - {"name"} for name in ARCHITECTURES}
    assert [row for row in rows if row["spilled"]] == []
