"""Matrix products by direct calls to cuBLAS: operands in float32 or bfloat16, sums in float32, transposed and sliced
views without a copy, batches, results of either type, written or accumulated.

CuPy's own product allows none of these for bfloat16, and none while a CUDA graph is captured. So each thread has its
own handle, with its own workspace: calls release the interpreter's lock, and a handle has one stream at a time.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import weakref
from typing import Any

import numpy as np

from tinygrad_chat.backend import array_module
from tinygrad_chat.errors import BackendError
from tinygrad_chat.kernels.cuda.launch import contiguous

# From cuBLAS's and CUDA's headers.
CUDA_R_32F, CUDA_R_16BF = 0, 14
CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_32F_FAST_TF32 = 68, 77
CUBLAS_GEMM_DEFAULT = -1
CUBLAS_STATUS_ALLOC_FAILED = 3

WORKSPACE = 32 << 20  # bytes: what cuBLAS asks for on compute capability 9.0

_PRODUCT = (
    *(ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p),
    *(ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_longlong) * 2,
    ctypes.c_void_p,
    *(ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_longlong),
    *(ctypes.c_int, ctypes.c_int, ctypes.c_int),
)


class Cublas:
    """A handle on the current device, with a workspace at a fixed address: for one thread, and destroyed with it."""

    def __init__(self, xp: Any) -> None:
        self._library = load_library(xp)
        self._library.cublasGemmStridedBatchedEx.argtypes = _PRODUCT
        self._handle = ctypes.c_void_p()
        _check(self._library.cublasCreate_v2(ctypes.byref(self._handle)))
        # Waits for the device before the workspace is freed. At the interpreter's end the device may be gone already.
        weakref.finalize(self, self._library.cublasDestroy_v2, self._handle).atexit = False
        self._workspace = xp.cuda.alloc(WORKSPACE)
        self._stream = None

    def use_stream(self, stream: int) -> None:
        """Submit work to `stream` from now on."""
        if stream == self._stream:
            return
        _check(self._library.cublasSetStream_v2(self._handle, ctypes.c_void_p(stream)))  # resets the workspace
        workspace = ctypes.c_void_p(self._workspace.ptr)
        _check(self._library.cublasSetWorkspace_v2(self._handle, workspace, ctypes.c_size_t(WORKSPACE)))
        self._stream = stream

    def gemm(self, *arguments: Any) -> None:
        """Call cublasGemmStridedBatchedEx with what follows the handle."""
        _check(self._library.cublasGemmStridedBatchedEx(self._handle, *arguments))


def load_library(xp: Any) -> ctypes.CDLL:
    """Return the cuBLAS that CuPy uses: once loaded, it is found by name, wherever it is installed."""
    xp.cuda.device.get_cublas_handle()  # loads it
    version = xp.cuda.runtime.runtimeGetVersion() // 1000
    name = f"cublas64_{version}.dll" if sys.platform == "win32" else f"libcublas.so.{version}"
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        raise BackendError(f"--backend cupy: expected CuPy to have loaded {name} ({error}); run: tgc doctor") from error


def _check(status: int) -> None:
    if status == CUBLAS_STATUS_ALLOC_FAILED:
        raise MemoryError("Out of memory for cuBLAS")
    if status != 0:
        raise BackendError(f"--backend cupy: a matrix product failed with cuBLAS status {status}")


class _Handles(threading.local):
    """The calling thread's handles, one for each device."""

    def __init__(self) -> None:
        self._made: dict[tuple[Any, int], Cublas] = {}

    def on(self, xp: Any, device: int) -> Cublas:
        if (xp, device) not in self._made:
            self._made[xp, device] = Cublas(xp)
        return self._made[xp, device]


_handles = _Handles()


def gemm(left: Any, right: Any, out: Any, *, tf32: bool, scale: float = 1.0, add: bool = False) -> Any:
    """Write scale * left (..., M, K) @ right (..., K, N) to `out` (..., M, N), or with `add` add it there; return it.

    At most two leading axes, the same for all; an operand may be broadcast along one with a stride of 0. With `tf32`,
    float32 factors are rounded to 10 bits. The forward pass decides that, by `compute_for`, and its backward rule must
    keep the choice: when the rule runs, another compute may be in force.
    """
    if out.ndim == 4:
        along = 0 if out.shape[0] <= out.shape[1] else 1  # one call per index of the shorter axis
        for i in range(out.shape[along]):
            part = (i,) if along == 0 else (slice(None), i)
            gemm(left[part], right[part], out[part], tf32=tf32, scale=scale, add=add)
        return out
    if out.size == 0:
        return out
    xp = array_module(out)
    cublas = _handles.on(xp, xp.cuda.runtime.getDevice())
    cublas.use_stream(xp.cuda.get_current_stream().ptr)
    M, N = out.shape[-2:]
    left, right = _readable(left), _readable(right)  # any copies stay alive until the call below
    # cuBLAS is column-major: it sees our row-major matrices as transposed, and out.T = right.T @ left.T.
    right_transposed, *right_place = _operand(right)
    left_transposed, *left_place = _operand(left)
    transposed, *out_place = _operand(out)
    assert not transposed
    alpha, beta = ctypes.c_float(scale), ctypes.c_float(add)
    kind = CUBLAS_COMPUTE_32F_FAST_TF32 if tf32 and left.dtype == np.float32 else CUBLAS_COMPUTE_32F
    cublas.gemm(
        *(right_transposed, left_transposed, N, M, left.shape[-1], ctypes.addressof(alpha)),
        *(*right_place, *left_place, ctypes.addressof(beta), *out_place),
        *(out.shape[0] if out.ndim == 3 else 1, kind, CUBLAS_GEMM_DEFAULT),
    )
    return out


def _readable(x: Any) -> Any:
    """Return x, copied if cuBLAS cannot read it in place: neither its rows nor its columns are contiguous, or matrices,
    rows or columns have negative strides or overlap."""
    fits = (_is_dense(x, -1) and _is_apart(x, -2)) or (_is_dense(x, -2) and _is_apart(x, -1))
    return x if fits and min(x.strides) >= 0 else contiguous(x, x.dtype)


def _is_dense(x: Any, axis: int) -> bool:
    return x.shape[axis] == 1 or x.strides[axis] == x.itemsize


def _is_apart(x: Any, axis: int) -> bool:
    """Return whether contiguous rows (axis -2) or columns (axis -1) do not overlap."""
    return x.shape[axis] == 1 or x.strides[axis] >= x.shape[-3 - axis] * x.itemsize


def _operand(x: Any) -> tuple[int, int, int, int, int]:
    """Return how cuBLAS is to read a matrix or a batch: transposed?, address, type, leading dimension, stride."""
    transposed = not (_is_dense(x, -1) and _is_apart(x, -2))
    inner, outer = (-2, -1) if transposed else (-1, -2)
    kind = CUDA_R_32F if x.dtype == np.float32 else CUDA_R_16BF
    # The stride of a single row means nothing, but cuBLAS requires at least the length of a row, and not 0.
    leading = max(x.strides[outer] // x.itemsize, x.shape[inner], 1)
    return int(transposed), x.data.ptr, kind, leading, x.strides[0] // x.itemsize if x.ndim == 3 else 0
