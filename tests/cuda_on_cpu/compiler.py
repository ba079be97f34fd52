"""The host's C++ compiler, in place of NVRTC: `.cu` sources become functions that run a whole grid."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import json
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tests.cuda_on_cpu import tape

FOLDER = Path(__file__).parent
KEPT = FOLDER / "__pycache__"
COMPILER = shutil.which("g++") or shutil.which("clang++")
ONE_AT_A_TIME = threading.Lock()  # shared memory and a block's threads are those of the library
KERNEL = re.compile(
    r'extern "C" __global__ void (?:__launch_bounds__\([\w, ]+\) )?(\w+)\(([^)]*)\)'
)  # its name, parameters
MAX_SHARED = 48 << 10  # bytes of shared memory that a launch may ask for, unless the kernel was told of more
_compared: set[str] | None = None  # within both_orders: the kernels that had more than one block


@contextmanager
def both_orders() -> Iterator[set[str]]:
    """Within this context each grid runs twice, with the last block first and with the first, from the same memory.

    Raises EmulationError where the results differ: a block read or wrote what another one writes. Provides the names of
    the kernels that had more than one block.
    """
    global _compared
    _compared = set()
    try:
        yield _compared
    finally:
        _compared = None


class EmulationError(AssertionError):
    """A kernel did what CUDA leaves undefined, or was handed something that it does not take."""


@functools.cache
def shared_library(code: str, flags: Sequence[str] = ()) -> ctypes.CDLL:
    """Compile C++ and load it. What was compiled once is kept, for other processes too."""
    assert COMPILER is not None
    command = [COMPILER, "-std=c++17", "-O3", "-shared", "-fPIC", "-U_FORTIFY_SOURCE", f"-I{FOLDER}", *flags]
    headers = [header.read_text() for header in sorted(FOLDER.glob("*.h"))]
    name = hashlib.sha256(repr((code, command, headers)).encode()).hexdigest()[:16]
    library = KEPT / f"{name}.so"
    if not library.exists():
        KEPT.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=KEPT) as folder:
            source, made = Path(folder) / f"{name}.cpp", Path(folder) / library.name
            source.write_text(code)
            done = subprocess.run([*command, "-o", made, source], capture_output=True, text=True, check=False)
            if done.returncode:
                raise EmulationError(done.stderr)
            made.replace(library)  # whole, or not there
    return ctypes.CDLL(str(library))


class RawModule:
    """As `cupy.RawModule`: CUDA C++ source, compiled, or a cubin of `Nvrtc`'s."""

    def __init__(self, *, code: str = "", options: Sequence[str] = (), path: str | None = None) -> None:
        if path is not None:
            code, options = json.loads(Path(path).read_bytes())
        expanded = preprocessed(code, options)
        self.parameters = {
            name: [parameter.split()[-1].strip("*") for parameter in parameters.split(",") if parameter.strip()]
            for name, parameters in KERNEL.findall(expanded)
        }
        entries = "".join(
            f'extern "C" const char* run_{name}(void** values, const char* letters, dim3 grid, dim3 block, '
            f"size_t room, bool last_first) {{\n"
            f"    return emulated::call({name}, values, letters, grid, block, room, last_first);\n}}\n"
            for name in self.parameters
        )
        self._library = shared_library(f'#include "emulation.h"\n{code}\n{entries}', tuple(options))

    def get_function(self, name: str) -> Kernel:
        """Return a kernel by its name."""
        return Kernel(name, getattr(self._library, f"run_{name}"), self.parameters[name])

    def variable(self, name: str, kind: Any) -> Any:
        """Return a variable of the emulation, of a type of ctypes; all libraries have it in common."""
        return kind.in_dll(self._library, name)


class Nvrtc:
    """As `cupy.cuda.nvrtc`: a cubin is the source and the host's options, to be compiled when it is loaded."""

    NOT_THE_HOST_S = ("--device-as-default-execution-space", "-ftz=true")

    def __init__(self) -> None:
        self._programs: dict[int, list[Any]] = {}

    def getVersion(self) -> tuple[int, int]:  # noqa: N802
        return 13, 0

    def createProgram(self, src: str, name: str, headers: Sequence[str], include_names: Sequence[str]) -> int:  # noqa: N802
        assert (name, headers, include_names) == ("", (), ())
        number = max(self._programs, default=0) + 1
        self._programs[number] = [src, None, ""]
        return number

    def compileProgram(self, prog: int, options: Sequence[str]) -> None:  # noqa: N802
        """Raise RuntimeError for code that has one architecture's instructions and is compiled for another."""
        program = self._programs[prog]
        (architecture,) = (option for option in options if option.startswith("-arch="))
        assert set(self.NOT_THE_HOST_S) <= set(options), "an option that CuPy gives all others is missing"
        if "#define WGMMA" in program[0] and architecture != "-arch=sm_90a":
            program[2] = f"wgmma: not for {architecture}"
            raise RuntimeError("NVRTC_ERROR_COMPILATION (6)")
        program[1] = [option for option in options if option not in (architecture, *self.NOT_THE_HOST_S)]

    def getCUBIN(self, prog: int) -> bytes:  # noqa: N802
        return json.dumps(self._programs[prog][:2]).encode()

    def getProgramLog(self, prog: int) -> str:  # noqa: N802
        return self._programs[prog][2]

    def destroyProgram(self, prog: int) -> None:  # noqa: N802
        del self._programs[prog]


def preprocessed(code: str, options: Sequence[str]) -> str:
    """Run the preprocessor: kernels may be named by a macro."""
    assert COMPILER is not None
    command = [COMPILER, "-E", "-P", "-x", "c++", *options, "-"]
    expanded = subprocess.run(command, input=code, capture_output=True, text=True, check=True).stdout
    return re.sub(r"\s+", " ", expanded)


class _Dim3(ctypes.Structure):
    _fields_ = [(axis, ctypes.c_uint) for axis in "xyz"]


class Kernel:
    """As what `cupy.RawModule.get_function` returns; it refuses what a GPU would misread. An array must be contiguous,
    unless the kernel is told how far its rows are apart: `x_row` for `x`."""

    runs = 0
    """Of all kernels, so far."""

    def __init__(self, name: str, run: Any, parameters: Sequence[str]) -> None:
        self.name = name
        self.max_dynamic_shared_size_bytes = MAX_SHARED
        self._run, self._parameters = run, parameters
        run.restype = ctypes.c_char_p
        run.argtypes = [ctypes.c_void_p, ctypes.c_char_p, _Dim3, _Dim3, ctypes.c_size_t, ctypes.c_bool]

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...], *, shared_mem: int = 0
    ) -> None:
        """Run every thread of the grid, at once or, while work is captured, at each replay."""
        if shared_mem > self.max_dynamic_shared_size_bytes:
            raise EmulationError(f"{self.name}: {shared_mem} bytes of shared memory that it was not told of")
        if tape.is_capturing():
            self._values(arguments)  # refuses what it would refuse at a replay
        tape.submit(self._run_all, grid, block, arguments, shared_mem)

    def _run_all(self, *launched: Any) -> None:
        """Run the grid; within `both_orders`, twice."""
        Kernel.runs += 1
        grid, _, arguments, _ = launched
        arrays = [x.view(np.ndarray) for x in arguments if isinstance(x, np.ndarray)]
        if _compared is None:
            self._run_once(*launched)
        else:
            memory = [x.reshape(-1).view(np.uint8) if x.flags.c_contiguous else memory_around(x) for x in arrays]
            before = [x.copy() for x in memory]
            self._run_once(*launched, last_first=True)
            other = [x.copy() for x in memory]
            for x, old in zip(memory, before, strict=True):
                x[:] = old
            self._run_once(*launched)
            if not all(map(np.array_equal, memory, other)):
                raise EmulationError(f"{self.name}: its result depends on the order in which the blocks run")
            if np.prod(grid) > 1:
                _compared.add(self.name)
        for x in arrays:
            expect_untouched_margins(x, self.name)

    def _run_once(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        arguments: tuple[Any, ...],
        shared: int,
        last_first: bool = False,
    ) -> None:
        letters, values = zip(*self._values(arguments), strict=True) if arguments else ((), ())
        addresses = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        sizes = (_Dim3(*size, *[1] * (3 - len(size))) for size in (grid, block))
        with ONE_AT_A_TIME:
            failure = self._run(addresses, "".join(letters).encode(), *sizes, shared, last_first)
        if failure:
            raise EmulationError(f"{self.name}: {failure.decode()}")

    def _values(self, arguments: Sequence[Any]) -> list[tuple[str, Any]]:
        strided = [f"{name}_row" in self._parameters for name in self._parameters]
        told = [*strided, *[False] * (len(arguments) - len(strided))]  # too many are refused when they are passed
        return [self._passed(x, strided=row) for x, row in zip(arguments, told, strict=False)]

    def _passed(self, x: Any, *, strided: bool) -> tuple[str, Any]:
        if isinstance(x, np.ndarray):
            if not x.flags.c_contiguous and not strided:
                raise EmulationError(f"{self.name}: an array of strides {x.strides} that the kernel would not see")
            return "p", ctypes.c_void_p(x.ctypes.data)
        kind = getattr(x, "dtype", None)
        if kind == np.uint64 and x == 0:
            return "p", ctypes.c_void_p(None)
        if kind == np.int64:
            return "q", ctypes.c_longlong(int(x))
        if kind == np.float32:
            return "f", ctypes.c_float(float(x))
        raise EmulationError(f"{self.name}: {type(x).__name__} is passed in a size that depends on chance")


MARGIN = 64  # bytes before and behind an array, of all ones: as numbers they are NaNs


def with_margins(x: np.ndarray) -> np.ndarray:
    """Return an array of x's shape and type, all NaNs, that tells when something was written beside it."""
    memory = np.full(x.nbytes + 3 * MARGIN, 0xFF, np.uint8)
    start = MARGIN + -(memory.ctypes.data + MARGIN) % MARGIN
    return memory[start : start + x.nbytes].view(x.dtype).reshape(x.shape)


def memory_around(x: np.ndarray) -> np.ndarray:
    """Return the bytes of all the memory that x is a part of."""
    while isinstance(x.base, np.ndarray):
        x = x.base
    return x.view(np.ndarray).ravel(order="K").view(np.uint8)


def expect_untouched_margins(x: np.ndarray, name: str) -> None:
    """Raise EmulationError where a kernel has written before or behind the memory that x is a part of."""
    memory = x
    while isinstance(memory.base, np.ndarray):
        memory = memory.base
    mapped_file = memory.base is not None  # weights that are read where they lie
    if mapped_file or memory.dtype != np.uint8 or memory.size < 3 * MARGIN:
        return
    start = MARGIN + -(memory.ctypes.data + MARGIN) % MARGIN
    if not (memory[:start] == 0xFF).all() or not (memory[start + memory.size - 3 * MARGIN :] == 0xFF).all():
        raise EmulationError(f"{name}: wrote beside an array of shape {x.shape}")
