"""NVIDIA's compiler takes every kernel, for each architecture, without a warning and without spilling a register."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from bench.kernels import ARCHITECTURES, REALS, compile_one
from tests.profiles import DEEP
from tinygrad_chat.kernels.cuda.launch import FOLDER

pytestmark = pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc, the compiler of the CUDA toolkit")


@DEEP
@pytest.mark.parametrize("real", REALS)
@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.cu")), ids=lambda path: path.stem)
def test_every_kernel_compiles_for_every_architecture(path: Path, real: str, tmp_path: Path):
    rows = compile_one(tmp_path, path.name, real)
    named = set(re.findall(r"__global__ void (\w+)\(", path.read_text()))
    if path.stem == "pointwise":
        named |= {name for op in ("gelu", "relu", "squared_relu") for name in (op, f"{op}_backward")}
    found = {(row["kernel"], row["real"], row["architecture"]) for row in rows}
    assert found == {(kernel, real, name) for kernel in named - {"name"} for name in ARCHITECTURES}
    assert [row for row in rows if row["spilled"]] == []
