"""cublasLt by direct calls: a product as a plan, with the algorithms that the library offers for it.

A plan needs no arrays, only how they lie in memory. cublasLt takes cuBLAS's handle in place of one of its own
(NVIDIA's cuBLAS documentation, "cublasLtHandle_t").
"""

from __future__ import annotations

import ctypes
import weakref
from typing import Any

from tinygrad_chat.kernels.cuda.cublas import (
    CUBLAS_STATUS_ALLOC_FAILED,
    CUDA_R_32F,
    WORKSPACE,
    Cublas,
    Factors,
    Operand,
    Product,
    check,
    library_name,
)

# From cublasLt.h of cuBLAS 13.
LAYOUT_BATCH_COUNT, LAYOUT_STRIDED_BATCH_OFFSET = 5, 6
DESC_TRANSA, DESC_TRANSB = 3, 4
PREF_MAX_WORKSPACE_BYTES, PREF_REDUCTION_SCHEME_MASK = 1, 3
PREF_MIN_ALIGNMENT_BYTES = 5, 6, 7, 8  # of A, B, C and D
REDUCTION_SCHEME_COMPUTE_TYPE = 2  # parts of a sum are kept and added in float32, whatever the result's type

MAX_ALGORITHMS = 8  # that are asked for
ALIGNMENT = 16  # bytes: more is of no use to an algorithm, and less excludes some

FUNCTIONS = (
    *("cublasLtMatmul", "cublasLtMatmulAlgoGetHeuristic", "cublasLtGetVersion"),
    *("cublasLtMatmulDescCreate", "cublasLtMatmulDescSetAttribute", "cublasLtMatmulDescDestroy"),
    *("cublasLtMatrixLayoutCreate", "cublasLtMatrixLayoutSetAttribute", "cublasLtMatrixLayoutDestroy"),
    *("cublasLtMatmulPreferenceCreate", "cublasLtMatmulPreferenceSetAttribute", "cublasLtMatmulPreferenceDestroy"),
)
_POINTER = ctypes.c_void_p
_MATMUL = (*[_POINTER] * 14, ctypes.c_size_t, _POINTER)


class Algorithm(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t: an algorithm, 64 bytes that only its version of the library understands, with
    the bytes of workspace that it needs and whether it can be used."""

    _fields_ = (
        ("code", ctypes.c_ubyte * 64),
        ("workspace", ctypes.c_size_t),
        ("state", ctypes.c_int),
        ("waves", ctypes.c_float),
        ("reserved", ctypes.c_int * 4),
    )

    @property
    def name(self) -> str:
        """Its 64 bytes as text."""
        return bytes(self.code).hex()


class CublasLt:
    """The library. Raises OSError if it is missing, and AttributeError if it lacks a function."""

    def __init__(self, xp: Any) -> None:
        self.library = load_library(xp)
        for name in FUNCTIONS:
            getattr(self.library, name)
        self.library.cublasLtMatmul.argtypes = _MATMUL
        self.library.cublasLtGetVersion.restype = ctypes.c_size_t

    @property
    def version(self) -> int:
        """Its version: 130100 is 13.1.0."""
        return self.library.cublasLtGetVersion()

    def make(self, kind: str, *given: Any) -> ctypes.c_void_p:
        """Return a new object of a kind, destroyed by itself."""
        made = _Opaque()
        check(getattr(self.library, f"cublasLt{kind}Create")(ctypes.byref(made), *given))
        destroy = getattr(self.library, f"cublasLt{kind}Destroy")
        weakref.finalize(made, destroy, ctypes.c_void_p(made.value)).atexit = False  # not the device's memory
        return made

    def set(self, kind: str, made: ctypes.c_void_p, attribute: int, value: Any) -> None:
        """Set an attribute of such an object to a number of C's."""
        size = ctypes.c_size_t(ctypes.sizeof(value))
        check(getattr(self.library, f"cublasLt{kind}SetAttribute")(made, attribute, ctypes.byref(value), size))


class _Opaque(ctypes.c_void_p):
    """A pointer to an object of the library's, which can be watched by a finalizer."""


def load_library(xp: Any) -> Any:
    """Return the cublasLt that belongs to CuPy's cuBLAS, which has loaded it. Raises OSError if it is missing."""
    return ctypes.CDLL(library_name(xp, "cublasLt"))


class Plan:
    """A product of operands that lie in memory as described, at addresses that are multiples of `alignment` bytes, with
    the `algorithm` that is to compute it.

    Raises BackendError if the library refuses it.
    """

    algorithm: Algorithm

    def __init__(self, light: CublasLt, product: Product, alignment: int) -> None:
        self._light, self._alignment = light, alignment
        self._multiply = light.library.cublasLtMatmul
        self._operation = light.make("MatmulDesc", product.compute, CUDA_R_32F)
        for attribute, operand in ((DESC_TRANSA, product.a), (DESC_TRANSB, product.b)):
            light.set("MatmulDesc", self._operation, attribute, ctypes.c_int32(operand.transposed))
        self._a = self._layout(product.a, product.M, product.K, product.batch)
        self._b = self._layout(product.b, product.K, product.N, product.batch)
        self._out = self._layout(product.out, product.M, product.N, product.batch)

    def _layout(self, operand: Operand, rows: int, columns: int, batch: int) -> ctypes.c_void_p:
        stored = (columns, rows) if operand.transposed else (rows, columns)
        sizes = (*map(ctypes.c_uint64, stored), ctypes.c_int64(operand.leading))
        layout = self._light.make("MatrixLayout", operand.kind, *sizes)
        self._light.set("MatrixLayout", layout, LAYOUT_BATCH_COUNT, ctypes.c_int32(batch))
        self._light.set("MatrixLayout", layout, LAYOUT_STRIDED_BATCH_OFFSET, ctypes.c_int64(operand.stride))
        return layout

    def algorithms(self, cublas: Cublas) -> list[Algorithm]:
        """Return those that the library offers, the presumably fastest first; none if it has none."""
        preference = self._light.make("MatmulPreference")
        limits = {
            PREF_MAX_WORKSPACE_BYTES: ctypes.c_uint64(WORKSPACE),
            PREF_REDUCTION_SCHEME_MASK: ctypes.c_uint32(REDUCTION_SCHEME_COMPUTE_TYPE),
            **dict.fromkeys(PREF_MIN_ALIGNMENT_BYTES, ctypes.c_uint32(self._alignment)),
        }
        for attribute, value in limits.items():
            self._light.set("MatmulPreference", preference, attribute, value)
        found, count = (Algorithm * MAX_ALGORITHMS)(), ctypes.c_int()
        status = self._light.library.cublasLtMatmulAlgoGetHeuristic(
            *(cublas.handle, self._operation, self._a, self._b, self._out, self._out, preference),
            *(MAX_ALGORITHMS, found, ctypes.byref(count)),
        )
        if status == CUBLAS_STATUS_ALLOC_FAILED:
            check(status)
        return [each for each in found[: count.value] if each.state == 0] if status == 0 else []

    def multiply(self, cublas: Cublas, factors: Factors, stream: int) -> int:
        """Compute the product on a stream; return the library's status."""
        return self._multiply(
            *(cublas.handle, self._operation, ctypes.addressof(factors.alpha), factors.a, self._a, factors.b, self._b),
            *(ctypes.addressof(factors.beta), factors.out, self._out, factors.out, self._out),
            *(ctypes.addressof(self.algorithm), cublas.workspace.ptr, WORKSPACE, stream),
        )
