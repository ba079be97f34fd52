"""cuBLAS by direct calls: its handles, each with a workspace, and its product.

Each thread has its own handle: calls release the interpreter's lock, and a handle has one stream at a time.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import weakref
from typing import Any, NamedTuple

from tinygrad_chat.errors import BackendError

# From cuBLAS's and CUDA's headers: library_types.h, cublas_api.h.
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


class Operand(NamedTuple):
    """How cuBLAS, which is column-major, reads a matrix or each matrix of a batch: transposed?, the type of an element,
    and in elements, the distance between columns and between matrices."""

    transposed: int
    kind: int
    leading: int
    stride: int


class Product(NamedTuple):
    """A x B (M, N) = A (M, K) x B (K, N), for `batch` of them, as cuBLAS sees it; `compute` is the precision."""

    M: int
    N: int
    K: int
    batch: int
    compute: int
    a: Operand
    b: Operand
    out: Operand


class Factors(NamedTuple):
    """Where a product's matrices are, and what it multiplies the product and the old values of `out` by."""

    alpha: ctypes.c_float
    beta: ctypes.c_float
    a: int
    b: int
    out: int


class Cublas:
    """A handle on the current device, with a workspace at a fixed address: for one thread, and destroyed with it."""

    def __init__(self, xp: Any) -> None:
        self._library = load_library(xp)
        self._library.cublasGemmStridedBatchedEx.argtypes = _PRODUCT
        self.handle = ctypes.c_void_p()
        check(self._library.cublasCreate_v2(ctypes.byref(self.handle)))
        # Waits for the device before the workspace is freed. At the interpreter's end the device may be gone already.
        weakref.finalize(self, self._library.cublasDestroy_v2, self.handle).atexit = False
        self.workspace = xp.cuda.alloc(WORKSPACE)
        self._stream = None

    def use_stream(self, stream: int) -> None:
        """Submit work to `stream` from now on."""
        if stream == self._stream:
            return
        check(self._library.cublasSetStream_v2(self.handle, ctypes.c_void_p(stream)))  # resets the workspace
        workspace = ctypes.c_void_p(self.workspace.ptr)
        check(self._library.cublasSetWorkspace_v2(self.handle, workspace, ctypes.c_size_t(WORKSPACE)))
        self._stream = stream

    def multiply(self, product: Product, factors: Factors) -> None:
        """Compute a product by cublasGemmStridedBatchedEx, which chooses the algorithm."""
        a, b, out = product.a, product.b, product.out
        status = self._library.cublasGemmStridedBatchedEx(
            *(self.handle, a.transposed, b.transposed, product.M, product.N, product.K),
            ctypes.addressof(factors.alpha),
            *(factors.a, a.kind, a.leading, a.stride),
            *(factors.b, b.kind, b.leading, b.stride),
            ctypes.addressof(factors.beta),
            *(factors.out, out.kind, out.leading, out.stride),
            *(product.batch, product.compute, CUBLAS_GEMM_DEFAULT),
        )
        check(status)


def load_library(xp: Any) -> ctypes.CDLL:
    """Return the cuBLAS that CuPy uses. Raises BackendError if it is not to be found."""
    xp.cuda.device.get_cublas_handle()  # loads it
    name = library_name(xp, "cublas")
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        raise BackendError(f"--backend cupy: expected CuPy to have loaded {name} ({error}); run: tgc doctor") from error


def library_name(xp: Any, library: str) -> str:
    """Return the file's name by which one of CuPy's libraries, once loaded, is found wherever it is installed."""
    version = xp.cuda.runtime.runtimeGetVersion() // 1000
    return f"{library}64_{version}.dll" if sys.platform == "win32" else f"lib{library}.so.{version}"


def check(status: int) -> None:
    """Raise MemoryError or BackendError if a call has failed."""
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


def cublas_of(xp: Any) -> Cublas:
    """Return this thread's handle on the current device."""
    return _handles.on(xp, xp.cuda.runtime.getDevice())
