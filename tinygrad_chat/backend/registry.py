"""Look up the back end of an array or a name, and the kernels that a name stands for."""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tinygrad_chat.backend.allocation import keep_freed_memory
from tinygrad_chat.backend.base import Backend
from tinygrad_chat.backend.numpy_backend import NumpyBackend
from tinygrad_chat.errors import BackendError
from tinygrad_chat.formatting import as_command, reason_of

Kernels = Mapping[Any, Callable[..., Any]]
"""Fast replacements: op -> array function with the same signature."""

_NUMPY = NumpyBackend()
_backend_of_type: dict[type, Backend] = {np.ndarray: _NUMPY, np.memmap: _NUMPY}


def backend_of(array: Any) -> Backend:
    """Return the back end whose memory `array` lives in. Raises TypeError for anything that is not an array."""
    backend = _backend_of_type.get(type(array))
    if backend is not None:
        return backend
    if isinstance(array, (np.ndarray, np.generic)):
        return _NUMPY
    raise TypeError(f"expected an array, received {type(array).__name__}; wrap numbers in numpy.asarray first")


def array_module(array: Any) -> Any:
    """Return the namespace (numpy or cupy) that computes on `array`; plain numbers count as NumPy's."""
    return _backend_of_type.get(type(array), _NUMPY).xp


def to_host(array: Any) -> np.ndarray:
    """Return `array` as a NumPy array, copied only if it is not in host memory."""
    return backend_of(array).to_host(array)


def in_native_order(array: Any) -> Any:
    """Return `array` in the processor's byte order, as kernels need it, copied only if it is in the other one."""
    dtype = array.dtype
    return array if dtype.isnative else array.astype(dtype.newbyteorder("="))


@functools.cache
def get_backend(name: str = "auto") -> Backend:
    """Return the back end called `name`: "numpy", "cupy", or "auto" for a GPU if there is a working one, else NumPy.

    Raises BackendError, with the command that fixes it, if CuPy or a GPU is missing.
    """
    if name == "numpy":
        keep_freed_memory()
        return _NUMPY
    if name not in ("auto", "cupy"):
        raise BackendError(f"--backend: expected auto, numpy or cupy, received {name!r}")
    if name == "auto":
        try:
            return get_backend("cupy")
        except BackendError:
            return get_backend("numpy")
    from tinygrad_chat.backend.cupy_backend import open_cupy

    backend = open_cupy()
    _backend_of_type[backend.array_type] = backend
    return backend


@functools.cache
def load_kernels(name: str) -> Kernels:
    """Return the kernels in a folder of `kernels/`, or none for "reference". Raises ImportError if they need more than
    is installed, and whatever a broken compiler raises.

    They are imported by name at first use, like a plug-in: kernels import the ops that they replace, never the reverse.
    """
    return {} if name == "reference" else importlib.import_module(f"tinygrad_chat.kernels.{name}").KERNELS


def why_no_kernels(name: str) -> str | None:
    """Return why the kernels of that name cannot be used here, in one line with the remedy, or None if they can."""
    try:
        load_kernels(name)
    except Exception as error:  # the compiler, an extra, is missing, broken or disabled by a variable
        reason = reason_of(error)
        variables = [variable for variable in sorted(os.environ) if variable.startswith(f"{name.upper()}_")]
        remedy = f"{as_command(['unset', *variables])}, or " if variables else ""
        return f"needs {name}, which fails to import ({reason}); {remedy}run: pip install -U 'tinygrad-chat[fast]'"
    return None


def why_slower(backend: Backend, kernels: str) -> str | None:
    """Return why the fastest kernels are not in use, if what they need is installed but does not work; else None."""
    fastest = backend.kernel_sets[0]
    if kernels == fastest:
        return None
    try:
        load_kernels(fastest)
    except Exception as error:
        not_installed = isinstance(error, ModuleNotFoundError) and error.name == fastest  # an extra, not asked for
        return None if not_installed else why_no_kernels(fastest)
    return None
