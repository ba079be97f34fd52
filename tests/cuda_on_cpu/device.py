"""A back end that stands in for a GPU: its arrays refuse to meet NumPy's, as CuPy's do, and its kernels are run by the
host. Its precision is float32 unless another is chosen.
Where it is asked to, it captures work and replays it, as a GPU does with CUDA graphs (tape.py).
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import ml_dtypes  # noqa: F401 - makes NumPy know bfloat16
import numpy as np

from tests.cuda_on_cpu import tape
from tests.cuda_on_cpu.bfloat16 import WIDENED, as_cupy_reads, widened
from tests.cuda_on_cpu.compiler import FOLDER, Kernel, Nvrtc, RawModule, memory_around, shared_library, with_margins
from tinygrad_chat.backend import Backend, GraphCapture, registry
from tinygrad_chat.kernels.cuda import cublas, cublas_lt

_may_wait = True


@contextmanager
def no_waiting() -> Iterator[None]:
    """Within this context nobody may ask for a number that the device has yet to compute."""
    global _may_wait
    _may_wait = False
    try:
        yield
    finally:
        _may_wait = True


def _wait(what: str) -> None:
    tape.refuse(f"{what}: the host waits for the device")
    if not _may_wait:
        raise AssertionError(f"{what}: the host waits for the device")


@contextmanager
def standing_in(*, capturing: bool = False, compute_capability: str = "80") -> Iterator[None]:
    """Within this context the package knows `DEVICE`, and its products are computed by tests/cuda_on_cpu/cublas.cpp and
    cublas_lt.cpp.

    If `capturing`, the device captures graphs. With a compute capability of 9.0, "90", it has wgmma.
    """
    loaders, state = (cublas.load_library, cublas_lt.load_library), (DEVICE.captures, DEVICE.compute_capability)
    nested = DeviceArray in registry._backend_of_type
    registry._backend_of_type[DeviceArray] = DEVICE
    cublas.load_library = cublas_lt.load_library = lambda xp: _Cublas(products_library())
    DEVICE.captures, DEVICE.compute_capability = capturing, compute_capability
    try:
        yield
    finally:  # one that stood in before goes on
        (cublas.load_library, cublas_lt.load_library), (DEVICE.captures, DEVICE.compute_capability) = loaders, state
        if not nested:
            del registry._backend_of_type[DeviceArray]


@functools.cache
def products_library() -> ctypes.CDLL:
    """Return cuBLAS and cublasLt on the host, in one library."""
    return shared_library("".join((FOLDER / file).read_text() for file in ("cublas.cpp", "cublas_lt.cpp")))


class _Cublas:
    """The library, whose products can be captured."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self.cublasGemmStridedBatchedEx = _Product(library.cublasGemmStridedBatchedEx, factors=(6, 15))
        self.cublasLtMatmul = _Product(library.cublasLtMatmul, factors=(2, 7))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, name)


class _Product:
    """A function of cuBLAS. Of a captured call, the addresses stay, and the two factors that the host passes by
    theirs."""

    def __init__(self, function: Any, *, factors: tuple[int, int]) -> None:
        self._function, self._factors = function, factors
        self.argtypes: tuple[Any, ...] = ()

    def __call__(self, *given: Any) -> int:
        self._function.argtypes = self.argtypes
        if not tape.is_capturing():
            return self._function(*given)
        kept: list[Any] = list(given)
        for place in self._factors:
            kept[place] = ctypes.c_float(ctypes.c_float.from_address(given[place]).value)
        tape.submit(self._replay, *kept)
        return 0

    def _replay(self, *given: Any) -> None:
        status = self._function(*(ctypes.addressof(x) if isinstance(x, ctypes.c_float) else x for x in given))
        assert status == 0, f"a captured product failed with status {status}"


class DeviceArray(np.ndarray):
    """An array in memory that NumPy cannot see."""

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self.ctypes.data)

    def dot(self, other: Any, out: Any = None) -> Any:
        _refuse_host("dot", [other])
        tape.refuse("a product of CuPy's own")
        return _wrapped(super().dot(other))

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        _refuse_host(ufunc.__name__, inputs)
        if ufunc is np.matmul:
            tape.refuse("a product of CuPy's own")
        out = options.pop("out", None)
        inputs = tuple(as_cupy_reads(ufunc, method, inputs, in_place=bool(out)))
        function = getattr(ufunc, method)
        if out:
            tape.submit(lambda out, *inputs: function(*inputs, **options, out=out), out, *inputs)
            return out[0]
        if method == "at":
            return tape.submit(function, *inputs)
        return _wrapped(tape.result_of(lambda *inputs: function(*inputs, **options), *inputs))

    def __array_function__(self, function: Any, types: Any, inputs: Any, options: Any) -> Any:
        _refuse_host(function.__name__, [*inputs, *options.values()])
        if function is np.shape:
            return inputs[0].shape  # which the host knows
        return _computed(function, inputs, options)

    def __getitem__(self, key: Any) -> Any:
        _refuse_host("indexing", key if isinstance(key, tuple) else (key,))
        if isinstance(key, DeviceArray) and key.dtype == bool:
            _wait("a mask as an index")
        return _wrapped(tape.result_of(_at, self, key))

    def __setitem__(self, key: Any, value: Any) -> None:
        _refuse_host("indexing", [value, *(key if isinstance(key, tuple) else (key,))])
        tape.submit(np.ndarray.__setitem__, self, key, value)


def _at(x: np.ndarray, key: Any) -> np.ndarray:
    """Return x[key]; of a single element too, a view."""
    found = x[key]
    return found if isinstance(found, np.ndarray) else x[(*(key if isinstance(key, tuple) else (key,)), ...)]


PRODUCTS = ("dot", "einsum", "inner", "matmul", "outer", "tensordot", "vdot")


def _computed(function: Any, inputs: Any, options: Any) -> Any:
    """Return a function's result, or, while work is captured, the array in which each replay will leave it."""
    if function.__name__ in PRODUCTS:
        tape.refuse("a product of CuPy's own")
    if function is np.copyto or options.get("out") is not None:
        tape.submit(lambda inputs, options: function(*inputs, **options), inputs, options)
        return options.get("out")
    return _wrapped(tape.result_of(lambda inputs, options: function(*inputs, **options), inputs, options))


def _captured(name: str) -> Any:
    """Return the array's method of that name, which can be captured."""
    original = getattr(np.ndarray, name)

    def method(self: DeviceArray, *given: Any, **options: Any) -> Any:
        if not tape.is_capturing():
            return original(self, *given, **options)
        if name == "fill":
            return tape.submit(original, self, *given)
        if name in CHANGING:
            tape.refuse(name)
        function = lambda x, given, options: original(x, *given, **options)  # noqa: E731
        return _wrapped(tape.result_of(function, self, given, options))

    return method


CHANGING = ("byteswap", "partition", "put", "resize", "setfield", "setflags", "sort")
for _name in dir(np.ndarray):
    if not _name.startswith("_") and _name not in ("dot", "view") and callable(getattr(np.ndarray, _name)):
        setattr(DeviceArray, _name, _captured(_name))


def _waiting(name: str) -> Any:
    """Return the array's method of that name, which waits for the device first."""

    def method(self: DeviceArray, *given: Any) -> Any:
        _wait(name)
        made = getattr(np.ndarray, name)(self, *given)
        return _wrapped(made) if isinstance(made, tuple) else made

    return method


NUMBERS = ("__bool__", "__complex__", "__float__", "__format__", "__index__", "__int__")
for _name in (*NUMBERS, "item", "nonzero", "tobytes", "tolist"):
    setattr(DeviceArray, _name, _waiting(_name))


def _refuse_host(name: str, inputs: Any) -> None:
    for x in inputs:
        for part in x if isinstance(x, (tuple, list)) else (x,):
            if type(part) is np.ndarray:
                raise TypeError(f"{name}: an array in host memory met one on the device")


def _plain(x: Any) -> Any:
    if isinstance(x, (tuple, list)):
        return type(x)(map(_plain, x))
    return x.view(np.ndarray) if isinstance(x, DeviceArray) else x


def _wrapped(x: Any) -> Any:
    if isinstance(x, (tuple, list)):
        return type(x)(map(_wrapped, x))
    return x.view(DeviceArray) if isinstance(x, np.ndarray) else np.asarray(x).view(DeviceArray)


class _Memory:
    def __init__(self, size: int) -> None:
        self._array = np.empty(size, np.uint8)
        self.ptr = self._array.ctypes.data


def _as_strided(x: Any, shape: tuple[int, ...], strides: tuple[int, ...]) -> Any:
    """Return a view of the memory that x is a part of, and of nothing beyond."""
    memory = memory_around(x.view(np.ndarray))
    place = {"offset": x.ctypes.data - memory.ctypes.data, "strides": strides}
    return np.ndarray(shape, x.dtype, memory, **place).view(type(x))


class Namespace:
    """NumPy's functions; what they make lies on the device, and only `asarray` and `array` take what does not."""

    newaxis = None
    RawModule = RawModule
    lib = SimpleNamespace(stride_tricks=SimpleNamespace(as_strided=_as_strided))
    cuda = SimpleNamespace(
        runtime=SimpleNamespace(getDevice=lambda: 0, getDeviceProperties=lambda device: {"l2CacheSize": 1 << 20}),
        get_current_stream=lambda: SimpleNamespace(ptr=0, is_capturing=tape.is_capturing),
        alloc=lambda size: _Memory(size),
        Device=lambda: SimpleNamespace(compute_capability=DEVICE.compute_capability),
        nvrtc=Nvrtc(),
    )

    def __getattr__(self, name: str) -> Any:
        original: Any = getattr(np, name)
        if not callable(original) or isinstance(original, (type, np.ufunc)):
            return original  # a ufunc comes to __array_ufunc__ by itself

        def function(*inputs: Any, **options: Any) -> Any:
            if name not in ("asarray", "array"):
                _refuse_host(name, inputs)
            if name in ("nonzero", "flatnonzero", "unique") or (name == "where" and len(inputs) == 1):
                _wait(name)
            if name == "argsort" and options.get("kind") not in (None, "stable"):
                raise ValueError(f"argsort: CuPy has no kind {options['kind']}")
            if name in ("asarray", "array") and not isinstance(inputs[0], DeviceArray):
                tape.refuse("a copy to the device")
            if name in WIDENED:
                inputs = tuple(widened(inputs))
            if name in ("empty", "empty_like"):
                made: Any = original(*map(_plain, inputs), **options)
                return _wrapped(tape.allocated(with_margins(made)))
            return _computed(original, inputs, options)

        return function


class Device(Backend):
    """The stand-in."""

    name = "device"
    xp = Namespace()
    array_type = DeviceArray
    device = "a stand-in"
    kernel_sets = ("cuda",)
    dtypes = ("float32", "bfloat16", "tf32")
    captures = False
    compute_capability = "80"

    def to_host(self, array: np.ndarray) -> np.ndarray:
        """Wait for the device."""
        _wait("a copy to the host")
        return array.view(np.ndarray)

    def synchronize(self) -> None:
        """Wait for the device."""
        _wait("synchronize")

    def mark(self) -> int:
        """Read the clock of the device, which counts kernels and products."""
        tape.refuse("an event to take the time by")
        return Kernel.runs + products_library().read_clock()

    def wait_for(self, mark: Any) -> None:
        """Return at once: it is never behind."""

    def send(self, buffer: np.ndarray, array: np.ndarray) -> None:
        """Copy at once."""
        tape.refuse("a copy to the device")
        array.view(np.ndarray)[...] = buffer

    def graph_capture(self) -> GraphCapture | None:
        """Return what captures on tapes, if asked for when the device began to stand in."""
        return tape.TapeCapture() if self.captures else None


DEVICE = Device()
