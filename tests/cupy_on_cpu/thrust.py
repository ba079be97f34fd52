"""In place of CuPy's module for Thrust, which is linked against CUDA's own runtime: sorting, by NumPy.

It is copied into the environment that build.py makes, as `cupy.cuda.thrust`.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

available = True
_submitted: list[Any] = []  # stays: a graph may call it again


def get_build_version() -> int:
    """Return no version of Thrust's."""
    return 0


def sort(dtype: Any, data: int, keys: int, shape: tuple[int, ...]) -> None:
    """Sort the rows of an array at an address."""
    _submit(lambda: _array(data, dtype, shape).sort(axis=-1))


def argsort(dtype: Any, indices: int, data: int, keys: int, shape: tuple[int, ...]) -> None:
    """Write to `indices` what sorts the rows."""

    def work() -> None:
        _array(indices, np.intp, shape)[...] = np.argsort(_array(data, dtype, shape), axis=-1, kind="stable")

    _submit(work)


def _array(address: int, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address)).view(dtype).reshape(shape)


def _submit(work: Callable[[], None]) -> None:
    def call() -> int:
        work()
        return 0

    _submitted.append(ctypes.CFUNCTYPE(ctypes.c_int)(call))
    stream = importlib.import_module("cupy.cuda").get_current_stream()
    status = _runtime().cupy_on_cpu_submit(ctypes.c_void_p(stream.ptr), _submitted[-1])
    assert status == 0, f"CUDA error {status}"


@functools.cache
def _runtime() -> Any:
    return ctypes.CDLL("libcuda.so.1")
