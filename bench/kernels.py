"""Compile every CUDA kernel for each architecture, without a GPU: registers, shared memory, spills and stack of each,
and how many of its blocks, and warps, a multiprocessor then holds at once. With nvdisasm, also how many instructions
the hottest loop of a kernel has that uses tensor cores.

Needs nvcc, or the extra `nvrtc`: the compiler that CuPy uses on a GPU's machine, with CuPy's options. Spilled registers
go to slow memory, and so do arrays on the stack, whose index the compiler does not know: there should be neither.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bench import nvrtc, turns
from bench.instructions import Loop, disassemble, find_disassembler, hottest_loops
from bench.occupancy import WARP, blocks_held, launched
from bench.record import write_result
from tinygrad_chat.errors import BackendError
from tinygrad_chat.kernels.cuda.launch import FOLDER, flags, own_architecture, source

NAME = "kernels"
ARCHITECTURES = ("sm_80", "sm_90", "sm_100")
REALS = ("float32", "bfloat16")
SERIALIZED = "Potential Performance Loss"  # by ptxas, where a product by wgmma would have to wait for the one before
USED = re.compile(
    r"Compiling entry function '(?P<kernel>\w+)' for '(?P<architecture>\w+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<spill_stores>\d+) bytes spill stores, "
    r"(?P<spill_loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers(?:[^\n]*?(?P<shared>\d+) bytes smem)?",
    re.DOTALL,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--results", type=turns.folder, default=turns.RESULTS, help="folder for JSON (bench/results)")


def measure(arguments: argparse.Namespace) -> None:
    rows = compile_all()
    for compiler in dict.fromkeys(row["compiler"] for row in rows):
        print(f"{compiler}: registers, and warps on a multiprocessor, most registers first")
        print(f"{'':<56} {'':<9} " + " ".join(f"{name:>9}" for name in ARCHITECTURES))
        mine = [row for row in rows if row["compiler"] == compiler]
        mine.sort(key=lambda row: -row["registers"])
        for kernel in dict.fromkeys(map(_kernel, mine)):
            cells = {row["architecture"].removesuffix("a"): _cell(row) for row in mine if _kernel(row) == kernel}
            name = f"{kernel[0]}: {kernel[1]}"
            print(f"{name:<56} {kernel[2]:<9} " + " ".join(f"{cells.get(name, ''):>9}" for name in ARCHITECTURES))
    _show_loops([row for row in rows if "loop" in row])
    print(f"written: {write_result(NAME, f'python -m bench {NAME}', {'rows': rows}, folder=arguments.results)}")


def _show_loops(rows: list[dict[str, Any]]) -> None:
    if not rows:
        print("instructions are not counted: expected NVRTC and nvdisasm, of the extra nvrtc")
        return
    print("NVRTC: instructions of the hottest loop, of them executed once a round, products on tensor cores")
    for row in rows:
        name, loop = f"{row['file']}: {row['kernel']}", row["loop"]
        print(
            f"{name:<56} {row['real']:<9} {row['architecture']:>9} "
            f"{loop['instructions']:>5} {loop['executed']:>5} {loop['products']:>5}"
        )


def _kernel(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["file"], row["kernel"], row["real"]


def _cell(row: dict[str, Any]) -> str:
    return f"{row['registers']:>3}, {row['warps']:>2}" + (f", {row['spilled']} B spilled" if row["spilled"] else "")


def compile_all() -> list[dict[str, Any]]:
    """Return a row for each compiler, kernel, type and architecture. Raises BackendError without any compiler, or where
    one refuses a kernel."""
    compilers = ([compile_by_nvcc] if shutil.which("nvcc") else []) + (
        [compile_by_nvrtc] if nvrtc.is_installed() else []
    )
    if not compilers:
        raise BackendError("expected a compiler of NVIDIA's, found none; run: pip install 'tinygrad-chat[nvrtc]'")
    jobs = [(compiler, file, real) for compiler in compilers for file, real in files()]
    with ThreadPoolExecutor(2) as pool:
        return [row for rows in pool.map(lambda job: job[0](*job[1:]), jobs) for row in rows]


def files() -> list[tuple[str, str]]:
    """Return each file with each type that it is compiled for: some kernels are written for bfloat16 alone."""
    of_a_type = re.compile("REAL|WIDE")  # WIDE is how many REALs there are in a vector
    return [
        (path.name, real)
        for path in sorted(FOLDER.glob("*.cu"))
        for real in REALS
        if real == "bfloat16" or of_a_type.search(path.read_text())
    ]


def architectures_of(file: str) -> tuple[str, ...]:
    """Return what a file is compiled for."""
    own = own_architecture(file)
    return ARCHITECTURES if own is None else (own,)


def compile_by_nvcc(file: str, real: str) -> list[dict[str, Any]]:
    """Return the rows of one file for one type. Raises BackendError where nvcc refuses it or warns."""
    targets = [f"-gencode=arch={name.replace('sm', 'compute')},code={name}" for name in architectures_of(file)]
    command = ["nvcc", "-fatbin", "-Werror", "all-warnings", "-Xptxas", "-v", *targets, *flags(_kind(real))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / file
        path.write_text(source(file))
        done = subprocess.run(
            [*command, "-o", path.with_suffix(".fatbin"), path], capture_output=True, text=True, check=False
        )
    if done.returncode or SERIALIZED in done.stderr:
        raise BackendError(f"{file} for {real}: nvcc refuses it: {done.stderr.strip()}")
    return _rows("nvcc", file, real, done.stderr)


def compile_by_nvrtc(file: str, real: str) -> list[dict[str, Any]]:
    """Return the rows of one file for one type. Raises BackendError where NVRTC refuses it or warns."""
    compiled = [nvrtc.compile_cubin(source(file), _kind(real), name) for name in architectures_of(file)]
    warned = next((log for _, log in compiled if "warning" in log or SERIALIZED in log), None)
    if warned is not None:
        raise BackendError(f"{file} for {real}: NVRTC warns: {warned.strip()}")
    disassembler, rows = find_disassembler(), []
    for cubin, log in compiled:
        loops = hottest_loops(disassemble(cubin, disassembler)) if disassembler else {}
        rows += [row | _counted(loops.get(row["kernel"])) for row in _rows("NVRTC", file, real, log)]
    return rows


def _counted(loop: Loop | None) -> dict[str, Any]:
    return {"loop": asdict(loop)} if loop else {}


def _kind(real: str) -> Any:
    return np.dtype(np.float32) if real == "float32" else None


def _rows(compiler: str, file: str, real: str, log: str) -> list[dict[str, Any]]:
    return [_row(compiler, file, real, found) for found in USED.finditer(log)]


def _row(compiler: str, file: str, real: str, found: re.Match[str]) -> dict[str, Any]:
    threads, dynamic = launched(file, found["kernel"])
    registers, shared = int(found["registers"]), int(found["shared"] or 0)
    blocks = blocks_held(found["architecture"], threads=threads, registers=registers, shared=shared + dynamic)
    return {
        "compiler": compiler,
        "file": file,
        "kernel": found["kernel"],
        "real": real,
        "architecture": found["architecture"],
        "registers": registers,
        "spilled": int(found["spill_stores"]) + int(found["spill_loads"]),
        "stack": int(found["stack"]),
        "shared": shared,
        "threads": threads,
        "dynamic_shared": dynamic,
        "blocks": blocks,
        "warps": blocks * threads // WARP,
    }
