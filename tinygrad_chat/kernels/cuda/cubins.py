"""Kernels for the instructions of one architecture alone, such as wgmma of sm_90a.

CuPy's RawModule names the architecture itself, from the compute capability, which leaves them out. So the cubin is
compiled by CuPy's binding of NVRTC, kept in the cache folder, and loaded by RawModule from there.
"""

from __future__ import annotations

import functools
import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinygrad_chat.errors import BackendError
from tinygrad_chat.files import cache_folder, is_there, write_atomic

ADDED_BY_CUPY = ("--device-as-default-execution-space", "-ftz=true")
"""What CuPy 14.2's compile_using_nvrtc adds to the options of a kernel, beside the architecture."""


def load(xp: Any, code: str, options: Sequence[str], architecture: str) -> Any:
    """Return a RawModule of the code, compiled unless an earlier process has done so.

    Raises BackendError, in the compiler's words, for code that NVRTC refuses, and OSError if a cubin cannot be kept.
    """
    nvrtc = xp.cuda.nvrtc
    given = (*options, *ADDED_BY_CUPY, f"-arch={architecture}")
    name = hashlib.sha256(repr((code, given, nvrtc.getVersion())).encode()).hexdigest()[:32]
    path = folder() / f"{name}.cubin"
    if not is_there(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, compile_cubin(nvrtc, code, given))
    return xp.RawModule(path=str(path))


def folder() -> Path:
    """Return where cubins are kept: in the cache folder or, on a machine where the package is not installed and
    platformdirs does not say where that is, until this process ends."""
    try:
        return cache_folder() / "cubins"
    except ModuleNotFoundError:
        return Path(_temporary_folder().name)


@functools.cache
def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="tinygrad-chat-cubins-")


def compile_cubin(nvrtc: Any, code: str, options: Sequence[str]) -> bytes:
    """Compile code by CuPy's binding `nvrtc`. Raises BackendError, in the compiler's words, for what it refuses."""
    program = nvrtc.createProgram(code, "", (), ())
    try:
        nvrtc.compileProgram(program, options)
        return nvrtc.getCUBIN(program)
    except RuntimeError as error:  # such as NVRTCError
        raise BackendError(f"NVRTC refuses it: {nvrtc.getProgramLog(program).strip() or error}") from error
    finally:
        nvrtc.destroyProgram(program)
