"""What can be said of the stand-ins without CuPy: they compile, and a program's kernels can be called."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.cupy_on_cpu.kernels import EMULATION, FOLDER, compile_program, kernel_names

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

PROGRAM = """
#define NAME(type) scale_##type
#define KERNEL(type) extern "C" \\
    __global__ void __launch_bounds__(64) NAME(type)(type* x, type factor, long long size) { \\
    const long long i = blockIdx.x * blockDim.x + threadIdx.x; \\
    if (i < size) x[i] *= factor; \\
}
KERNEL(float)
KERNEL(double)
#ifdef MORE
KERNEL(int)
#endif
"""


@pytest.mark.parametrize("name", ["cublas", "nccl", "nvrtc"])
def test_a_stand_in_that_needs_no_header_of_nvidia_s_compiles_without_a_warning(name: str):
    flags = "-std=c++17", "-fsyntax-only", "-Wall", "-Wextra", "-Wno-unused-function", "-Werror"
    command = ["g++", *flags, f"-I{EMULATION}", str(FOLDER / f"{name}.cpp")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_kernels_whose_names_are_made_by_macros_are_found():
    assert kernel_names(PROGRAM, []) == ["scale_float", "scale_double"]
    assert kernel_names(PROGRAM, ["-DMORE"]) == ["scale_float", "scale_double", "scale_int"]


class Entry(ctypes.Structure):
    """That of headers/entry.h."""

    _fields_ = [("count", ctypes.c_int), ("sizes", ctypes.POINTER(ctypes.c_size_t)), ("run", ctypes.c_void_p)]


class Size(ctypes.Structure):
    _fields_ = [(axis, ctypes.c_uint) for axis in "xyz"]


def test_a_kernel_is_run_by_its_entry(tmp_path: Path):
    """Which knows the sizes of its parameters; blocks whose threads lie beyond the array do nothing."""
    compile_program(f"cupy_on_cpu\n-arch=sm_90\n\n{PROGRAM}", tmp_path / "scale.so")
    entry = Entry.in_dll(ctypes.CDLL(str(tmp_path / "scale.so")), "entry_scale_double")
    assert entry.sizes[: entry.count] == [8, 8, 8]
    x = np.arange(100.0)
    address, factor, size = ctypes.c_void_p(x.ctypes.data), ctypes.c_double(0.5), ctypes.c_longlong(99)
    arguments = (ctypes.c_void_p * 3)(*(ctypes.addressof(value) for value in (address, factor, size)))
    run = ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_void_p, Size, Size, ctypes.c_size_t)(entry.run)
    assert run(ctypes.addressof(arguments), Size(2, 1, 1), Size(64, 1, 1), 0) is None
    assert x.tolist() == [*(np.arange(99.0) / 2), 99]


def test_a_program_that_does_not_compile_leaves_nothing(tmp_path: Path):
    with pytest.raises(SystemExit, match="unknown"):
        compile_program('cupy_on_cpu\n\nextern "C" __global__ void f() { unknown(); }', tmp_path / "f.so")
    assert not list(tmp_path.iterdir())
