"""NVRTC, the compiler that CuPy runs kernels through, by its wheel: it needs neither a driver nor a GPU."""

from __future__ import annotations

import ctypes
import functools
from importlib import metadata
from typing import Any

from tinygrad_chat.errors import BackendError
from tinygrad_chat.kernels.cuda.cubins import ADDED_BY_CUPY
from tinygrad_chat.kernels.cuda.launch import flags

PACKAGE = "nvidia-cuda-nvrtc"


def is_installed() -> bool:
    """Return whether the wheel is there."""
    try:
        metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        return False
    return True


def compile_cubin(code: str, real: Any, architecture: str) -> tuple[bytes, str]:
    """Compile CUDA C++ as CuPy does for activations of type `real`; return the cubin and what the compiler says.

    That is registers, shared memory and spills of each kernel, as `nvcc -Xptxas -v` says them, and any warnings. Raises
    BackendError, with the compiler's words, for code that it refuses.
    """
    library, program = _load(), ctypes.c_void_p()
    options = (*flags(real), *ADDED_BY_CUPY, f"-arch={architecture}", "--ptxas-options=-v")
    given = (ctypes.c_char_p * len(options))(*map(str.encode, options))
    if library.nvrtcCreateProgram(ctypes.byref(program), code.encode(), None, 0, None, None):
        raise BackendError("NVRTC cannot begin a program")
    try:
        failed = library.nvrtcCompileProgram(program, len(options), given)
        log = _read(program, "ProgramLog").rstrip(b"\0").decode()
        if failed:
            raise BackendError(f"NVRTC refuses it: {log.strip()}")
        return _read(program, "CUBIN"), log
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _read(program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    getattr(_load(), f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    content = ctypes.create_string_buffer(size.value)
    getattr(_load(), f"nvrtcGet{what}")(program, content)
    return content.raw


@functools.cache
def _load() -> ctypes.CDLL:
    paths = {file.name.split(".")[0]: file.locate() for file in metadata.files(PACKAGE) or () if ".so." in file.name}
    ctypes.CDLL(str(paths["libnvrtc-builtins"]))  # which the compiler looks for by name only
    return ctypes.CDLL(str(paths["libnvrtc"]))
