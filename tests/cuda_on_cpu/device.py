"""A back end that stands in for a GPU: its arrays refuse to meet NumPy's, as CuPy's do, and its kernels are run by the
host. Its precision is float32 unless another is chosen.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import ml_dtypes  # noqa: F401 - makes NumPy know bfloat16
import numpy as np

from tests.cuda_on_cpu.compiler import FOLDER, RawModule, shared_library, with_margins
from tinygrad_chat.backend import Backend, registry
from tinygrad_chat.kernels.cuda import matmul

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
    if not _may_wait:
        raise AssertionError(f"{what}: the host waits for the device")


@contextmanager
def standing_in() -> Iterator[None]:
    """Within this context the package knows `DEVICE`, and its products are computed by tests/cuda_on_cpu/cublas.cpp."""
    library = matmul.load_library
    registry._backend_of_type[DeviceArray] = DEVICE
    matmul.load_library = lambda xp: shared_library((FOLDER / "cublas.cpp").read_text())
    try:
        yield
    finally:
        del registry._backend_of_type[DeviceArray]
        matmul.load_library = library


class DeviceArray(np.ndarray):
    """An array in memory that NumPy cannot see."""

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self.ctypes.data)

    def dot(self, other: Any, out: Any = None) -> Any:
        _refuse_host("dot", [other])
        return _wrapped(super().dot(other))

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        _refuse_host(ufunc.__name__, inputs)
        out = options.pop("out", None)
        plain = {"out": tuple(x.view(np.ndarray) for x in out)} if out else {}
        result = getattr(ufunc, method)(*map(_plain, inputs), **options, **plain)
        return None if method == "at" else out[0] if out else _wrapped(result)

    def __array_function__(self, function: Any, types: Any, inputs: Any, options: Any) -> Any:
        _refuse_host(function.__name__, [*inputs, *options.values()])
        return _wrapped(function(*map(_plain, inputs), **{name: _plain(x) for name, x in options.items()}))

    def __getitem__(self, key: Any) -> Any:
        _refuse_host("indexing", key if isinstance(key, tuple) else (key,))
        if isinstance(key, DeviceArray) and key.dtype == bool:
            _wait("a mask as an index")
        return _wrapped(super().__getitem__(_plain(key)))

    def __setitem__(self, key: Any, value: Any) -> None:
        _refuse_host("indexing", [value, *(key if isinstance(key, tuple) else (key,))])
        super().__setitem__(_plain(key), value)


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


class Namespace:
    """NumPy's functions; what they make lies on the device, and only `asarray` and `array` take what does not."""

    newaxis = None
    RawModule = RawModule
    cuda = SimpleNamespace(
        runtime=SimpleNamespace(getDevice=lambda: 0, getDeviceProperties=lambda device: {"l2CacheSize": 1 << 20}),
        get_current_stream=lambda: SimpleNamespace(ptr=0),
        alloc=lambda size: _Memory(size),
    )

    def __getattr__(self, name: str) -> Any:
        original = getattr(np, name)
        if not callable(original) or isinstance(original, (type, np.ufunc)):
            return original  # a ufunc comes to __array_ufunc__ by itself

        def function(*inputs: Any, **options: Any) -> Any:
            if name not in ("asarray", "array"):
                _refuse_host(name, inputs)
            if name in ("nonzero", "flatnonzero", "unique") or (name == "where" and len(inputs) == 1):
                _wait(name)
            if name == "argsort" and options.get("kind") not in (None, "stable"):
                raise ValueError(f"argsort: CuPy has no kind {options['kind']}")
            made: Any = original(*map(_plain, inputs), **options)
            return _wrapped(with_margins(made) if name in ("empty", "empty_like") else made)

        return function


class Device(Backend):
    """The stand-in."""

    name = "device"
    xp = Namespace()
    array_type = DeviceArray
    device = "a stand-in"
    kernel_sets = ("cuda",)
    dtypes = ("float32", "bfloat16", "tf32")

    def to_host(self, array: np.ndarray) -> np.ndarray:
        """Wait for the device."""
        _wait("a copy to the host")
        return array.view(np.ndarray)

    def synchronize(self) -> None:
        """Wait for the device."""
        _wait("synchronize")


DEVICE = Device()
