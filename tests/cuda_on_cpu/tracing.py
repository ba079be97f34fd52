"""A device that computes nothing and writes down everything: each launch, each product and each copy, with its sizes.

Its arrays have shapes and types, and memory that nobody touches, so the step of a large model takes the host a second
and no memory. What is read and what is written follows from the kernels' own signatures.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.cuda_on_cpu.compiler import KERNEL, preprocessed
from tests.cuda_on_cpu.device import Device, DeviceArray, Namespace
from tinygrad_chat.backend import registry
from tinygrad_chat.kernels.cuda import cublas, cublas_lt

UPDATED = {
    "adamw_update": {"data", "mean", "square"},
    "embedding_backward": {"d_table"},
    "embedding_backward_join": {"d_table"},
    "even_out": {"square"},
    "look_ahead": {"mean"},
    "move_matrices": {"data"},
    "rotary_backward": {"d_x"},
}
"""kernel -> the parameters that it reads and writes; of all others, what is not constant is only written"""
ROWS_OF_A_TABLE = {
    "embedding": (("table",), "out"),
    "embedding_backward": (("d_table",), "d_out"),
    "embedding_backward_join": (("d_table",), "heads"),
    "look_ahead": (("gradient",), "mean"),
    "write_columns": (("keys", "values"), "key"),
    "move_matrices": (("data", "copy"), "x"),
}
"""kernel -> parameters of which it touches only some rows: at most as many elements as another parameter has"""

IDLE = {"scale_gradient"}
"""kernels that only read a number, which in a training step says that there is nothing to do"""


@dataclass
class Call:
    """One piece of the device's work: what it reads and writes in bytes, and the floating-point operations of a
    product; `in_float32` if tensor cores, which round to bfloat16 or TF32, cannot help with it."""

    name: str
    read: int
    written: int
    operations: int = 0
    in_float32: bool = False


class TracedArray(DeviceArray):
    """An array of which only shape, type and place count."""

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        arrays = [x for x in inputs if isinstance(x, np.ndarray)]
        if ufunc is np.matmul:
            return _product(*inputs)
        small = [np.ones((1,) * x.ndim, x.dtype) if isinstance(x, np.ndarray) else x for x in inputs]
        with np.errstate(all="ignore"):
            if method == "reduce":
                like = ufunc.reduce(*small, **{name: x for name, x in options.items() if name in REDUCING})
                shape = _reduced(arrays[0].shape, options.get("axis", 0), keeping=options.get("keepdims", False))
            else:
                like = getattr(ufunc, method)(*small, **{n: x for n, x in options.items() if n in ("dtype",)})
                shape = np.broadcast_shapes(*(x.shape for x in arrays))
        (out,) = options.get("out") or (_empty(shape, like.dtype),)
        return DEVICE.work(ufunc.__name__, arrays, [out])

    def __array_function__(self, function: Any, types: Any, inputs: Any, options: Any) -> Any:
        return getattr(DEVICE.xp, function.__name__)(*inputs, **options)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, TracedArray) and key.dtype.kind == "i":
            return DEVICE.work("take", [key], [_empty((*key.shape, *self.shape[1:]), self.dtype)])
        if isinstance(key, np.ndarray) or (isinstance(key, tuple) and any(isinstance(k, np.ndarray) for k in key)):
            raise NotImplementedError("tracing: an array as an index")
        return np.ndarray.__getitem__(self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        DEVICE.work("copy", [value], [self[key]])

    def fill(self, value: Any) -> None:
        DEVICE.work("fill", [], [self])

    def astype(self, dtype: Any, *given: Any, copy: bool = True, **options: Any) -> Any:
        same = np.dtype(dtype) == self.dtype and not copy
        return self if same else DEVICE.work("copy", [self], [_empty(self.shape, dtype)])

    def clip(self, *bounds: Any, **named: Any) -> Any:
        return DEVICE.work("clip", [self], [_empty(self.shape, self.dtype)])

    def copy(self, order: Any = "C") -> Any:
        return self.astype(self.dtype)

    def ravel(self, order: Any = "C") -> Any:
        return self.reshape(-1)

    def reshape(self, *shape: Any, **options: Any) -> Any:
        try:
            return super().reshape(*shape, **options, copy=False)
        except ValueError:
            return self.copy().reshape(*shape)

    def dot(self, other: Any, out: Any = None) -> Any:
        return _product(self, other)


REDUCING = ("axis", "dtype", "keepdims")


def _reduced(shape: tuple[int, ...], axis: Any, *, keeping: bool) -> tuple[int, ...]:
    axes = range(len(shape)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    gone = {each % len(shape) for each in axes}
    return tuple(1 if i in gone else n for i, n in enumerate(shape) if keeping or i not in gone)


def _empty(shape: Any, dtype: Any = np.float32) -> TracedArray:
    return np.ndarray.__new__(TracedArray, shape, dtype)  # the operating system hands out memory when it is touched


def _product(left: Any, right: Any) -> Any:
    """CuPy's own product, of matrices or stacks of them."""
    stack = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    out = _empty((*stack, left.shape[-2], right.shape[-1]), _type_of(left, right))
    DEVICE.work("product", [left, right], [out])
    DEVICE.calls[-1].operations, DEVICE.calls[-1].in_float32 = 2 * out.size * left.shape[-1], out.dtype == np.float32
    return out


def _type_of(*given: Any) -> Any:
    return np.result_type(*(x.dtype if isinstance(x, np.ndarray) else x for x in given))


def _bytes(arrays: Sequence[Any]) -> int:
    """Return the bytes of these arrays; along a stride of 0 they are the same ones again."""
    apart = [[n for n, stride in zip(x.shape, x.strides, strict=True) if stride] for x in arrays]
    return sum(x.itemsize * int(np.prod(sizes, dtype=np.int64)) for x, sizes in zip(arrays, apart, strict=True))


class _Kernel:
    """A kernel by its name and its parameters: name -> whether it is only read, for pointers."""

    def __init__(self, name: str, parameters: str) -> None:
        self._name = name
        self._parameters = [
            (parameter.split()[-1].strip("*"), parameter.startswith("const ") if "*" in parameter else None)
            for parameter in (each.strip() for each in parameters.split(","))
        ]

    def __call__(self, grid: Any, block: Any, arguments: Sequence[Any], **options: Any) -> Any:
        given = {
            name: (x, constant)
            for (name, constant), x in zip(self._parameters, arguments, strict=True)
            if isinstance(x, np.ndarray)
        }
        if self._name in IDLE:
            return DEVICE.work(self._name, [x for x, _ in given.values() if x.size == 1], [])
        tables, rows = ROWS_OF_A_TABLE.get(self._name, ((), ""))
        for table in given.keys() & tables:
            whole, constant = given[table]
            given[table] = whole.reshape(-1)[: given[rows][0].size], constant
        updated = UPDATED.get(self._name, set())
        read = [x for name, (x, constant) in given.items() if constant or name in updated]
        return DEVICE.work(self._name, read, [x for x, constant in given.values() if not constant])


class _Module:
    def __init__(self, *, code: str, options: Sequence[str], **others: Any) -> None:
        self._kernels = dict(KERNEL.findall(preprocessed(code, options)))

    def get_function(self, name: str) -> _Kernel:
        return _Kernel(name, self._kernels[name])


def _gemm(handle: Any, *arguments: Any) -> int:
    """cublasGemmStridedBatchedEx, as cublas.py calls it."""
    _, _, N, M, K, _, *others = arguments
    right, left, beta, out, (count, kind, _) = others[:4], others[4:8], others[8], others[9:13], others[13:]

    def size(place: Sequence[int], rows: int, columns: int) -> int:
        _, kind, _, stride = place
        matrices = count if stride or count == 1 else 1  # a stride of 0: one matrix for all
        return (4 if kind == cublas.CUDA_R_32F else 2) * rows * columns * matrices

    written = size(out, M, N)
    adds = ctypes.c_float.from_address(beta).value != 0
    read = size(left, M, K) + size(right, K, N) + (written if adds else 0)
    in_float32 = left[1] == cublas.CUDA_R_32F and kind == cublas.CUBLAS_COMPUTE_32F
    DEVICE.calls.append(Call("product", read, written, 2 * M * N * K * count, in_float32))
    return 0


def _missing(xp: Any) -> Any:
    raise OSError("no cublasLt: every product is one call of cuBLAS")


def _succeeding(*arguments: Any) -> int:
    return 0


CUBLAS = SimpleNamespace(
    cublasCreate_v2=_succeeding,
    cublasDestroy_v2=_succeeding,
    cublasSetStream_v2=_succeeding,
    cublasSetWorkspace_v2=_succeeding,
    cublasGemmStridedBatchedEx=_gemm,
)


class _TracedNamespace(Namespace):
    """Of CuPy's functions those that a training step calls; any other is refused."""

    RawModule = _Module
    ndarray = TracedArray

    def __getattr__(self, name: str) -> Any:
        original = getattr(np, name)
        if isinstance(original, (type, np.ufunc)) or not callable(original):
            return original
        raise NotImplementedError(f"tracing: the sizes of what {name} returns are not known here")

    def empty(self, shape: Any, dtype: Any = np.float64) -> Any:
        return _empty(shape, dtype)

    def empty_like(self, x: Any, dtype: Any = None) -> Any:
        return _empty(x.shape, dtype or x.dtype)

    def zeros(self, shape: Any, dtype: Any = np.float64) -> Any:
        return DEVICE.work("fill", [], [_empty(shape, dtype)])

    ones = zeros

    def zeros_like(self, x: Any, dtype: Any = None) -> Any:
        return self.zeros(x.shape, dtype or x.dtype)

    ones_like = zeros_like

    def array(self, x: Any, dtype: Any = None, **options: Any) -> Any:
        x = x if isinstance(x, TracedArray) else np.asarray(x)
        return DEVICE.work("copy", [x], [_empty(x.shape, dtype or x.dtype)])

    def asarray(self, x: Any, dtype: Any = None, order: Any = None) -> Any:
        there = isinstance(x, TracedArray) and np.dtype(dtype or x.dtype) == x.dtype
        return x if there and (order != "C" or x.flags.c_contiguous) else self.array(x, dtype)

    def ascontiguousarray(self, x: Any) -> Any:
        return self.asarray(x, order="C")

    def argsort(self, x: Any, **options: Any) -> Any:
        return DEVICE.work("argsort", [x], [_empty(x.shape, np.int64)])

    def stack(self, arrays: Sequence[Any]) -> Any:
        return DEVICE.work("copy", arrays, [_empty((len(arrays), *arrays[0].shape), arrays[0].dtype)])

    def concatenate(self, arrays: Sequence[Any], axis: int = 0) -> Any:
        shape = list(arrays[0].shape)
        shape[axis] = sum(x.shape[axis] for x in arrays)
        return DEVICE.work("copy", arrays, [_empty(tuple(shape), arrays[0].dtype)])

    def where(self, condition: Any, x: Any, y: Any) -> Any:
        arrays = [each for each in (condition, x, y) if isinstance(each, np.ndarray)]
        shape = np.broadcast_shapes(*(each.shape for each in arrays))
        return DEVICE.work("where", arrays, [_empty(shape, _type_of(x, y))])


class TracedDevice(Device):
    """Writes down `calls` while `tracing`; all else is as on the stand-in that computes."""

    name = "traced device"
    xp: Any = _TracedNamespace()
    array_type = TracedArray
    dtypes = ("bfloat16", "float32", "tf32")

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def work(self, name: str, read: Sequence[Any], written: Sequence[Any]) -> Any:
        """Write down a call that reads and writes these arrays; return the first one written."""
        on_device = [x for x in read if isinstance(x, TracedArray)]
        self.calls.append(Call(name, _bytes(on_device), _bytes(written)))
        return written[0] if written else None

    def mark(self) -> int:
        """Mark a point in the device's work: how many calls came before."""
        return len(self.calls)


DEVICE = TracedDevice()


@contextmanager
def traced() -> Iterator[TracedDevice]:
    """Provide the device, known to the package, with nothing written down yet."""
    loaders = cublas.load_library, cublas_lt.load_library
    registry._backend_of_type[TracedArray] = DEVICE
    cublas.load_library, cublas_lt.load_library = (lambda xp: CUBLAS), _missing
    DEVICE.calls = []
    try:
        yield DEVICE
    finally:
        del registry._backend_of_type[TracedArray]
        cublas.load_library, cublas_lt.load_library = loaders
