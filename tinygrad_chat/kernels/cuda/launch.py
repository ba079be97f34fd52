"""How the `.cu` files beside this one are compiled, and their kernels launched on the current stream.

Nothing here imports CuPy: it is found through the arrays.
"""

from __future__ import annotations

import functools
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from tinygrad_chat.backend import array_module
from tinygrad_chat.errors import BackendError
from tinygrad_chat.kernels.cuda import cubins

FOLDER = Path(__file__).parent
THREADS = 256  # per block: whole warps, and several blocks per multiprocessor
WARP = 32  # threads
WARPS = THREADS // WARP  # rows per block, where each warp has one row
MAX_CHUNKS = 256  # into which rows are divided for summing: enough to fill a GPU
SHARED = 48 << 10  # bytes of shared memory that a block gets without asking for more

_INCLUDE = re.compile(r'^#include "(\w+\.cuh?)"$', re.MULTILINE)


def source(file: str) -> str:
    """Return a file after the shared header. Headers are inlined: CuPy does not notice when an included one changes."""
    return (FOLDER / "common.cuh").read_text() + _inlined(file)


def _inlined(file: str) -> str:
    return _INCLUDE.sub(lambda found: _inlined(found[1]), (FOLDER / file).read_text())


def flags(real: Any) -> tuple[str, ...]:
    """Return the compiler's flags for activations of type `real`: float32 or bfloat16."""
    return ("-std=c++17", f"-DREAL={'float' if real == np.float32 else 'bfloat16'}")


@functools.cache
def _function(xp: Any, file: str, name: str, real: Any, shared: int) -> Any:
    function = _module(xp, file, real).get_function(name)
    if shared > SHARED:
        function.max_dynamic_shared_size_bytes = shared
    return function


@functools.cache
def _module(xp: Any, file: str, real: Any) -> Any:
    return load_module(xp, file, real)


def load_module(xp: Any, file: str, real: Any) -> Any:
    """Compile a file for activations of type `real`, or find it compiled. Raises what the compiler raises."""
    own = own_architecture(file)
    if own is not None:
        return cubins.load(xp, source(file), flags(real), own)
    return xp.RawModule(code=source(file), options=flags(real))


def own_architecture(file: str) -> str | None:
    """Return the one architecture whose instructions a file has, such as wgmma of sm_90a, or None for all."""
    return "sm_90a" if "_wgmma_" in file else None


@functools.cache
def compiles(xp: Any, file: str, real: Any) -> bool:
    """Return whether a file of one architecture's instructions can be compiled here; if not, one line says why."""
    try:
        _module(xp, file, real)
    except (BackendError, OSError) as error:
        reason = str(error).splitlines()[0]
        warnings.warn(f"{file} cannot be compiled, older kernels are used: {reason}", RuntimeWarning, stacklevel=2)
        return False
    return True


def launch(
    file: str,
    name: str,
    real: Any,
    blocks: int | tuple[int, ...],
    *arguments: Any,
    threads: int = THREADS,
    shared: int = 0,
) -> None:
    """Launch kernel `name`, compiled for `real`, with `threads` per block and `shared` bytes of dynamic shared memory.

    Arrays are passed by address and must be contiguous, unless the kernel is told their strides. None becomes a null
    pointer, a Python int a 64-bit integer and a Python float a float32.
    """
    xp = next(array_module(x) for x in arguments if hasattr(x, "ndim"))
    grid = blocks if isinstance(blocks, tuple) else (blocks,)
    if 0 in grid:
        return
    function = _function(xp, file, name, real, shared)
    function(grid, (threads,), tuple(map(_passed, arguments)), shared_mem=shared)


def _passed(x: Any) -> Any:
    if x is None:
        return np.uint64(0)
    if isinstance(x, (bool, int)):
        return np.int64(x)
    if isinstance(x, float):
        return np.float32(x)
    if not hasattr(x, "strides") or isinstance(x, np.generic):
        raise TypeError(f"launch: expected an array or a number of Python's, received {type(x).__name__}")
    return x


def per_thread(size: int, each: int = 1) -> int:
    """Return how many blocks it takes to give each thread `each` of `size` elements."""
    return -(-size // (THREADS * each))


def per_warp(rows: int) -> int:
    """Return how many blocks it takes to give each warp one of `rows`."""
    return -(-rows // WARPS)


def width(length: int, *arrays: Any) -> int:
    """Return how many elements a thread may load at once from arrays with rows of that length: 16 bytes of the smallest
    type, `WIDE` in the kernels, if the rows are aligned for it, else 1."""
    count = 16 // min(x.itemsize for x in arrays if x is not None)
    aligned = all(x is None or x.data.ptr % (count * x.itemsize) == 0 for x in arrays)
    return count if aligned and length % count == 0 else 1


def in_memory(xp: Any, number: Any, dtype: Any) -> Any:
    """Return a number as a kernel reads it from device memory: copied there, unless it is an array there already."""
    return xp.asarray(np.array(number, dtype)) if array_module(number) is np else number


def contiguous(x: Any, real: Any) -> Any:
    """Return x as kernels take it, copied if it is not contiguous or not of type `real`."""
    return array_module(x).asarray(x, dtype=real, order="C")


def dense(x: Any) -> Any:
    """Return x (..., C), copied unless each of its rows is contiguous: for kernels that are told how far these are
    apart."""
    return x if x.shape[-1] == 1 or x.strides[-1] == x.itemsize else contiguous(x, x.dtype)
