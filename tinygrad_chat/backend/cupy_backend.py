"""CuPy as a back end, and advice for machines where it does not work."""

from __future__ import annotations

import ctypes
import os
import sys
import weakref
from contextlib import AbstractContextManager, nullcontext
from importlib import metadata
from typing import Any

import numpy as np

from tinygrad_chat.backend.base import Backend
from tinygrad_chat.backend.cupy_graph_capture import CupyGraphCapture
from tinygrad_chat.errors import BackendError

NUMPY_FOR_BFLOAT16 = "2.1.2"
OLDEST = (7, 0)
"""The oldest compute capability supported: the kernels use warp shuffles that name their lanes."""

OLDEST_FOR_CUDA_13 = (7, 5)
"""The oldest that the compiler of CUDA 13, and so CuPy built for it, generates code for."""

OUT_OF_MEMORY = ("cudaErrorMemoryAllocation", "CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED")
"""The runtime's, the driver's and cuBLAS's names for this error."""


class CupyBackend(Backend):
    """Arrays on the current CUDA device."""

    name = "cupy"
    kernel_sets = ("cuda",)

    def __init__(self, cupy: Any) -> None:
        """Raises BackendError, with the remedy, for a device that is too old."""
        properties: Any = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
        capability = properties["major"], properties["minor"]
        cuda = cupy.cuda.runtime.runtimeGetVersion() // 1000  # the one that CuPy was built for
        oldest = OLDEST if cuda < 13 else OLDEST_FOR_CUDA_13
        self.xp = cupy
        self.array_type = cupy.ndarray
        self.device = properties["name"].decode()
        if capability < oldest:
            remedy = "train on the CPU with --backend numpy" if capability < OLDEST else f"run: {_installing(12)}"
            raise BackendError(
                f"--backend cupy: expected a GPU of compute capability {_dotted(oldest)} or newer for CUDA {cuda}, "
                f"found {self.device} with {_dotted(capability)}; {remedy}"
            )
        self.dtypes = _dtypes(capability)
        self._captures: weakref.WeakSet[CupyGraphCapture] = weakref.WeakSet()

    def to_host(self, array: Any) -> np.ndarray:
        """Return a copy in host memory."""
        return self.xp.asnumpy(array)

    def synchronize(self) -> None:
        """Wait for every stream of the device."""
        self.xp.cuda.Device().synchronize()

    def memory_held(self) -> int:
        """Return the bytes that CuPy's memory pool and those of captured graphs have allocated."""
        return self.xp.get_default_memory_pool().total_bytes() + sum(each.memory_held() for each in self._captures)

    def memory_free(self) -> int:
        """Return the device's free bytes plus those that the pool holds but does not use."""
        return self.xp.cuda.runtime.memGetInfo()[0] + self.xp.get_default_memory_pool().free_bytes()

    def visible_devices(self) -> list[str]:
        """Return the devices' names in CUDA_VISIBLE_DEVICES."""
        count = self.xp.cuda.runtime.getDeviceCount()
        named = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        return named[:count] if named != [""] else [str(number) for number in range(count)]

    def ran_out_of_memory(self, error: BaseException) -> bool:
        """Recognise CUDA's errors, too: not every allocation goes through CuPy's pool."""
        return super().ran_out_of_memory(error) or any(name in str(error) for name in OUT_OF_MEMORY)

    def mark(self) -> Any:
        """Record an event in the current stream."""
        event = self.xp.cuda.Event()
        event.record()
        return event

    def seconds_between(self, begin: Any, end: Any) -> float:
        """Return the seconds between two events that have happened."""
        return self.xp.cuda.get_elapsed_time(begin, end) / 1000

    def wait_for(self, mark: Any) -> None:
        """Wait for an event."""
        mark.synchronize()

    def sending_buffer(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Return page-locked memory: copies from other memory begin only once the host has staged them."""
        from cupyx import empty_pinned  # pyright: ignore[reportMissingImports]

        return empty_pinned(shape, dtype)

    def send(self, buffer: np.ndarray, array: Any) -> None:
        """Submit the copy to the current stream."""
        array.set(buffer)

    def graph_capture(self) -> CupyGraphCapture:
        """Return a new stream and memory pool on which to capture CUDA graphs."""
        capture = CupyGraphCapture(self.xp)
        self._captures.add(capture)
        return capture

    def annotate(self, name: str) -> AbstractContextManager[None]:
        """Open an NVTX range, if CuPy has NVTX."""
        if not self.xp.cuda.nvtx.available:
            return nullcontext()
        from cupyx.profiler import time_range  # pyright: ignore[reportMissingImports]

        return time_range(name)


def open_cupy() -> CupyBackend:
    """Return the back end for the current CUDA device.

    Raises BackendError, in one line with the remedy, if the driver, CuPy or a GPU is missing.
    """
    try:
        import cupy  # pyright: ignore[reportMissingImports] - an extra

        usable = cupy.cuda.is_available()
    except Exception as error:  # a broken CUDA installation fails in many ways, and `auto` must get past each of them
        installed = ", ".join(cupy_wheels())
        cause = " ".join(str(error).split())  # CuPy explains a missing library over many lines
        reason = f"{installed} is installed but fails to import ({cause})" if installed else "CuPy is not installed"
        raise BackendError(f"--backend cupy: {reason}; {advice()}") from error
    if not usable:
        look = "" if driver_cuda_version() is None else "check that nvidia-smi lists one, or "
        raise BackendError(f"--backend cupy: CuPy {cupy.__version__} finds no usable GPU; {look}{advice()}")
    return CupyBackend(cupy)


def _dotted(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))


def _dtypes(capability: tuple[int, int]) -> tuple[str, ...]:
    """Return the precisions of a device, fastest first: tensor cores for the shorter ones came with 8.0."""
    if capability < (8, 0):
        return ("float32",)
    return ("bfloat16", "tf32", "float32") if why_no_bfloat16() is None else ("tf32", "float32")


def why_no_bfloat16() -> str | None:
    """Return what CuPy lacks for bfloat16, in one line with the remedy, or None."""
    if np.lib.NumpyVersion(np.__version__) < NUMPY_FOR_BFLOAT16:
        return f"NumPy {NUMPY_FOR_BFLOAT16} or newer; run: pip install -U 'numpy>={NUMPY_FOR_BFLOAT16}'"
    try:
        import ml_dtypes  # noqa: F401 - registers bfloat16 with NumPy and CuPy
    except ImportError:
        return "ml-dtypes; run: pip install ml-dtypes"
    return None


def driver_cuda_version() -> int | None:
    """Return the newest CUDA that the NVIDIA driver supports (12040 is 12.4), or None without a driver."""
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return None
    version = ctypes.c_int(0)
    return version.value if driver.cuDriverGetVersion(ctypes.byref(version)) == 0 else None


def cupy_wheels() -> list[str]:
    """Return the installed distributions that provide `cupy`, as "name version"; more than one is a conflict."""
    names = ("cupy", "cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x")
    found = []
    for name in names:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return found


def advice() -> str:
    """Return the one step that makes `--backend cupy` work on this machine."""
    driver = driver_cuda_version()
    if driver is None:
        return (
            "no NVIDIA driver was found: install one, then run: pip install 'tinygrad-chat[cuda12]' "
            "(or train on the CPU with --backend numpy)"
        )
    if driver < 12000:
        return f"the driver supports CUDA {driver // 1000} only: update it to one for CUDA 12 or newer"
    return f"run: {_installing(min(driver // 1000, 13))}"


def _installing(cuda: int) -> str:
    """Return the command that installs CuPy for CUDA 12 or 13, in place of any that is there."""
    installed = [found.split()[0] for found in cupy_wheels()]
    # All of them install into one folder, so with two installed neither is intact, and removing one breaks the other.
    remove = f"pip uninstall -y {' '.join(installed)} && " if installed not in ([], [f"cupy-cuda{cuda}x"]) else ""
    return f"{remove}pip install 'tinygrad-chat[cuda{cuda}]'"
