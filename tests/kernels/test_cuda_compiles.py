"""NVIDIA's compiler takes every kernel, for each architecture, without a warning and without spilling a register."""

from __future__ import annotations

import re
import shutil

import pytest

from bench.kernels import ARCHITECTURES, REALS, compile_all
from tinygrad_chat.kernels.cuda.launch import FOLDER

pytestmark = pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc, the compiler of the CUDA toolkit")


@pytest.mark.timeout(180)
def test_every_kernel_compiles_for_every_architecture():
    rows = compile_all()
    named = {name for path in FOLDER.glob("*.cu") for name in re.findall(r"__global__ void (\w+)\(", path.read_text())}
    named |= {name for op in ("gelu", "relu", "squared_relu") for name in (op, f"{op}_backward")}
    found = {(row["kernel"], row["real"], row["architecture"]) for row in rows}
    assert found == {(kernel, real, name) for kernel in named - {"name"} for real in REALS for name in ARCHITECTURES}
    assert [row for row in rows if row["spilled"]] == []
