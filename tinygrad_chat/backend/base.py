"""The back-end record, and the functions that find the one an array or a name belongs to."""

from __future__ import annotations

import functools
import importlib
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil

from tinygrad_chat.backend.allocation import keep_freed_memory
from tinygrad_chat.errors import BackendError

Kernels = Mapping[Any, Callable[..., Any]]
"""Fast replacements, from op to array function of the same signature."""


@dataclass(eq=False)
class Backend:
    """Where arrays live and who computes on them.

    `xp` is the array library's namespace, `array_type` the class of its arrays, `device` a name for people,
    `kernel_sets` the folders of `kernels/` that suit it, the fastest first, `to_host` copies an array of it to NumPy,
    `synchronize` waits until all work submitted so far is done and `memory_held` tells the bytes held on the device
    (None: it is the host), `memory_free` those that are left. `mark` marks a moment in the work of the device, of which
    `seconds_between` two tells, and `annotate` names a stretch of it for the maker's profilers. `dtypes` are the
    precisions that it can compute in, the fastest first: float32, tf32 (float32 but for products, whose factors are
    rounded to 10 bits) and bfloat16.
    """

    name: str
    kernel_sets: tuple[str, ...]
    xp: Any
    array_type: type
    device: str
    to_host: Callable[[Any], np.ndarray]
    synchronize: Callable[[], None]
    memory_held: Callable[[], int | None] = lambda: None
    memory_free: Callable[[], int] = lambda: psutil.virtual_memory().available
    mark: Callable[[], Any] = time.perf_counter
    seconds_between: Callable[[Any, Any], float] = lambda begin, end: end - begin
    annotate: Callable[[str], AbstractContextManager[None]] = lambda name: nullcontext()
    dtypes: tuple[str, ...] = ("float32",)
    dtype: str = "float32"

    @functools.cached_property
    def kernels(self) -> Kernels:
        """The kernels in use: the fastest that are installed, unless `use_kernels` chose others."""
        return load_kernels(self.kernel_set)

    @functools.cached_property
    def kernel_set(self) -> str:
        """The name of the kernels in use."""
        return next(name for name in self.kernel_sets if self._why_not(name) is None)

    def use_kernels(self, name: str) -> None:
        """Let ops run the kernels called `name` from now on: one of `kernel_sets`, reference (none), or auto.

        Raises BackendError where there are none of that name for these arrays, or what they need is missing.
        """
        if name not in ("auto", "reference", *self.kernel_sets):
            known = ", ".join(("auto", "reference", *self.kernel_sets))
            raise BackendError(f"--kernels: expected {known} with --backend {self.name}, received {name}")
        reason = None if name in ("auto", "reference") else self._why_not(name)
        if reason is not None:
            raise BackendError(f"--kernels {name}: {reason}")
        for chosen in ("kernel_set", "kernels"):
            self.__dict__.pop(chosen, None)
        if name != "auto":
            self.kernel_set = name

    def use_dtype(self, name: str) -> None:
        """Let models built from now on compute in a precision: one of `dtypes`, or auto.

        Raises BackendError for another, and for bfloat16 without the kernels that it needs.
        """
        known = self.dtypes
        if self.kernel_set == "reference":  # ops as they are read leave the types to the array library
            known = tuple(dtype for dtype in known if dtype != "bfloat16")
        if name not in ("auto", *known):
            where = f"--backend {self.name} --kernels {self.kernel_set} on {self.device}"
            raise BackendError(f"--dtype: expected {', '.join(('auto', *known))} with {where}, received {name}")
        self.dtype = known[0] if name == "auto" else name

    @property
    def compute_dtype(self) -> np.dtype[Any]:
        """The type of activations, and of the weights that they are computed with."""
        return np.dtype(self.dtype if self.dtype == "bfloat16" else np.float32)

    @staticmethod
    def _why_not(name: str) -> str | None:
        """Return why kernels cannot be used here, in one line with the remedy, or None where they can."""
        try:
            load_kernels(name)
        except ImportError as error:  # of a compiler that is an extra: missing, or of a version that does not fit NumPy
            missing = f"needs {name}, which fails to import ({' '.join(str(error).split())})"
            return f"{missing}; run: pip install -U 'tinygrad-chat[fast]'"
        return None


@functools.cache
def load_kernels(name: str) -> Kernels:
    """Return the kernels in a folder of `kernels/`, or none for "reference". Raises ImportError where one needs more
    than is installed.

    They are found by name at first use, as a plug-in is: kernels import the ops that they replace, never the reverse.
    """
    return {} if name == "reference" else importlib.import_module(f"tinygrad_chat.kernels.{name}").KERNELS


NUMPY = Backend(
    name="numpy",
    kernel_sets=("numba", "numpy"),
    xp=np,
    array_type=np.ndarray,
    device="cpu",
    to_host=lambda array: array,
    synchronize=lambda: None,
)

_backend_of_type: dict[type, Backend] = {np.ndarray: NUMPY, np.memmap: NUMPY}


def backend_of(array: Any) -> Backend:
    """Return the back end whose memory `array` lives in. Raises TypeError for anything that is not an array."""
    backend = _backend_of_type.get(type(array))
    if backend is not None:
        return backend
    if isinstance(array, (np.ndarray, np.generic)):
        return NUMPY
    raise TypeError(f"expected an array, received {type(array).__name__}; wrap numbers in numpy.asarray first")


def array_module(array: Any) -> Any:
    """Return the namespace (numpy or cupy) that computes on `array`; plain numbers count as NumPy's."""
    backend = _backend_of_type.get(type(array), NUMPY)
    return backend.xp


def to_host(array: Any) -> np.ndarray:
    """Return `array` as a NumPy array, copied only where it lives elsewhere."""
    return backend_of(array).to_host(array)


@functools.cache
def get_backend(name: str = "auto") -> Backend:
    """Return the back end called `name`: "numpy", "cupy", or "auto" for a GPU where there is a working one.

    Raises BackendError, with the command that mends it, where CuPy or a GPU is missing.
    """
    if name == "numpy":
        keep_freed_memory()
        return NUMPY
    if name not in ("auto", "cupy"):
        raise BackendError(f"--backend: expected auto, numpy or cupy, received {name!r}")
    from tinygrad_chat.backend.cupy_backend import open_cupy

    try:
        backend = open_cupy()
    except BackendError:
        if name == "auto":
            return get_backend("numpy")
        raise
    _backend_of_type[backend.array_type] = backend
    return backend
