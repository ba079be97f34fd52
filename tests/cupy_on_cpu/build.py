"""Make an environment in which CuPy finds a GPU: a virtual environment with CuPy's wheel, and the stand-ins for CUDA's
libraries beside it.

One module of the wheel is linked against CUDA's own runtime, which needs a driver: it is compiled again from CuPy's
source against the stand-in. Another is Thrust, which thrust.py replaces.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path

from tests.cupy_on_cpu.kernels import EMULATION, FLAGS, FOLDER, INCLUDES

ROOT = FOLDER.parents[1]
CUPY, CYTHON = "14.2.0", "3.2.9"
CUDA_VERSION = 12090
HEADERS = {"runtime": "12.9.79", "nvcc": "12.9.86", "profiler_api": "12.9.79"}
"""NVIDIA's packages with the headers, and their versions."""

NOT_SUPPORTED = {"cuda": 801, "cublas": 15, "nccl": 5}
"""What a function returns that the stand-in lacks, by how its name begins."""


class Environment:
    """The environment in a folder, and its parts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "venv" / "bin"
        self.cuda = folder / "cuda"
        """As an installation of CUDA's toolkit: include/ is NVIDIA's, lib64/ the stand-in's."""
        self.libraries = self.cuda / "lib64"

        compiled_with = [*EMULATION.glob("*.h"), *FOLDER.glob("headers/*.h"), FOLDER / "kernels.py"]
        self.kernels = folder / "kernels" / _digest(compiled_with)

    @property
    def packages(self) -> Path:
        """Where the virtual environment has its packages."""
        return next((self.folder / "venv").glob("lib/python*/site-packages"))

    def variables(self) -> dict[str, str]:
        """Return the environment variables for what runs in it."""
        return {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "LD_LIBRARY_PATH": str(self.libraries),
            "CUDA_PATH": str(self.cuda),
            "CUPY_ACCELERATORS": "",  # CUB is a part of Thrust's library
            "CUPY_CACHE_DIR": str(self.folder / "cubins"),
            "CUPY_ON_CPU_KERNELS": str(self.kernels),
            "CUPY_ON_CPU_COMPILER": f"'{self.bin / 'python'}' '{FOLDER / 'kernels.py'}'",
        }

    def build(self) -> None:
        """Make what is missing or older than its sources. Raises SystemExit with what a command said that failed."""
        missing = [program for program in ("g++", "nm") if shutil.which(program) is None]
        if missing or sys.platform != "linux":
            sys.exit(f"cupy_on_cpu: expected Linux with g++ and nm, found {' and no '.join([sys.platform, *missing])}")
        versions = [CUPY, CYTHON, *HEADERS.values(), _digest([ROOT / "pyproject.toml"])]
        self._once("environment", versions, self._install)
        sources = [EMULATION.glob("*.[ch]*"), FOLDER.glob("*.[ch]*"), [FOLDER / "headers" / "entry.h"]]
        scripts = [Path(__file__), FOLDER / "thrust.py"]
        self._once("libraries", [_digest([*chain(*sources), *scripts])], self._build_libraries)
        self._once("header", [self.kernels.name], self._precompile)

    def _once(self, name: str, made_of: Sequence[str], make: Callable[[], None]) -> None:
        stamp, text = self.folder / name, "\n".join(made_of)
        if stamp.exists() and stamp.read_text() == text:
            return
        print(f"cupy_on_cpu: making the {name}", file=sys.stderr)
        make()
        stamp.write_text(text)

    def _install(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        _run(sys.executable, "-m", "venv", self.folder / "venv")
        pip = self.bin / "python", "-m", "pip", "--quiet", "--disable-pip-version-check"
        _run(*pip, "install", "-e", f"{ROOT}[mpi,test]", f"cupy-cuda12x=={CUPY}", f"cython=={CYTHON}")
        headers = self.folder / "headers"
        packages = (f"nvidia-cuda-{package.replace('_', '-')}-cu12=={version}" for package, version in HEADERS.items())
        _run(*pip, "install", "--no-deps", "--target", headers, *packages)
        for package in HEADERS:
            shutil.copytree(
                headers / "nvidia" / f"cuda_{package}" / "include", self.cuda / "include", dirs_exist_ok=True
            )
        # To name its requirements, CuPy's source looks for CUDA, unless it is told of none.
        source = "download", "--no-deps", "--no-binary", "cupy", "--dest", self.folder, f"cupy=={CUPY}"
        _run(*pip, *source, CUPY_INSTALL_USE_STUB="1")
        with tarfile.open(self.folder / f"cupy-{CUPY}.tar.gz") as archive:
            archive.extractall(self.folder, filter="data")
        self.libraries.mkdir(parents=True)
        self._compile_runtime()
        for thrust in self.packages.glob("cupy/cuda/thrust.*.so"):
            thrust.unlink()

    def _compile_runtime(self) -> None:
        """Compile CuPy's module for the runtime against a library that has nothing yet but its name."""
        source = self.folder / f"cupy-{CUPY}" / "cupy_backends"
        made = source / "cuda" / "api" / "runtime.cpp"
        constants = {
            "CUPY_CUDA_VERSION": CUDA_VERSION,
            "CUPY_HIP_VERSION": 0,
            "CUPY_USE_CUDA_PYTHON": False,
            "CUPY_CUFFT_STATIC": False,
            "CUPY_CYTHON_VERSION": CYTHON,
        }
        given = [word for name, value in constants.items() for word in ("-E", f"{name}={value}")]
        cython = self.bin / "python", "-m", "cython", "--cplus", "-3", *given, "-o", made
        _run(*cython, made.with_suffix(".pyx").relative_to(source.parent), cwd=source.parent)
        cuda = self.libraries / "libcuda.so.1"
        self._compile(cuda)
        self._compile(self._module("api/runtime"), made, cuda, flags=("-w", f"-I{source}", f"-I{_python_headers()}"))

    def _build_libraries(self) -> None:
        sources = [FOLDER / f"{name}.cpp" for name in ("streams", "runtime", "driver")]
        names = "cuda.so.1", "cublas.so.12", "nvrtc.so.12", "nccl.so.2"
        cuda, cublas, nvrtc, nccl = (self.libraries / f"lib{name}" for name in names)
        self._compile(cuda, *sources, self._missing("cuda", self._module("api/runtime")))
        self._compile(nvrtc, FOLDER / "nvrtc.cpp")
        self._compile(cublas, FOLDER / "cublas.cpp", self._missing("cublas", self._module("libs/cublas")), cuda)
        self._compile(nccl, FOLDER / "nccl.cpp", self._missing("nccl", self._module("libs/nccl")), cuda)
        for name, library in {"libcudart.so.12": cuda, "libcublasLt.so.12": cublas}.items():
            (self.libraries / name).unlink(missing_ok=True)
            (self.libraries / name).symlink_to(library.name)
        shutil.copy(FOLDER / "thrust.py", self.packages / "cupy" / "cuda")

    def _precompile(self) -> None:
        """Compile the header of all of CuPy's kernels, which takes as long as the rest of one."""
        self.kernels.mkdir(parents=True, exist_ok=True)
        header, made = FOLDER / "headers" / "cupy_kernels.h", self.kernels / "cupy_kernels.h.gch"
        cupy = self.packages / "cupy" / "_core" / "include"
        folders = cupy, *(cupy / "cupy" / "_cccl").iterdir(), self.cuda / "include"
        includes = *INCLUDES, *(f"-I{folder}" for folder in folders)
        _run("g++", *FLAGS, "-O1", *includes, "-x", "c++-header", "-o", made, header)

    def _module(self, name: str) -> Path:
        """Return the path of one of CuPy's modules."""
        return next(self.packages.glob(f"cupy_backends/cuda/{name}.*.so"))

    def _missing(self, prefix: str, module: Path) -> Path:
        """Write a source with each function that a module wants and whose name begins so, which only fails. Functions
        of the same names, compiled beside them, are preferred."""
        command = [
            "nm",
            "--dynamic",
            "--undefined-only",
            "--format=just-symbols",
            "--without-symbol-versions",
            str(module),
        ]
        wanted = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        functions = "".join(
            f'__attribute__((weak)) int {name}() {{ return COMPLAIN("{name} is missing"), {NOT_SUPPORTED[prefix]}; }}\n'
            for name in wanted
            if name.startswith(prefix)
        )
        path = self.folder / f"missing_{prefix}.cpp"
        path.write_text(f'#include "device.h"\nextern "C" {{\n{functions}}}\n')
        return path

    def _compile(self, library: Path, *sources: Path, flags: Sequence[str] = ()) -> None:
        """Compile a shared library, or replace one."""
        includes = [f"-I{path}" for path in (FOLDER, EMULATION, self.cuda / "include")]
        name = () if library.parent != self.libraries else (f"-Wl,-soname,{library.name}",)
        made = self.folder / library.name
        what = *flags, *includes, "-o", made, *(sources or ("-xc++", "/dev/null")), *name, "-ldl"
        _run("g++", "-std=c++17", "-O3", "-shared", "-fPIC", *what)
        made.replace(library)


def _python_headers() -> str:
    return sysconfig.get_path("include")


def _digest(paths: Iterable[Path]) -> str:
    content = b"".join(path.read_bytes() for path in sorted(paths))
    return hashlib.sha256(content).hexdigest()[:16]


def _run(*command: str | Path, cwd: Path | None = None, **variables: str) -> None:
    """Run a command, of whose output only an error is worth reading."""
    given = {"cwd": cwd, "env": {**os.environ, **variables}, "text": True, "capture_output": True}
    done = subprocess.run(list(map(str, command)), check=False, **given)
    if done.returncode:
        sys.exit(f"cupy_on_cpu: {' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
