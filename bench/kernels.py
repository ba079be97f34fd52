"""Compile every CUDA kernel for each architecture, without a GPU: registers, shared memory and spills of each.

Needs nvcc. Spilled registers go to slow memory: there should be none.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from bench import turns
from bench.record import write_result
from tinygrad_chat.errors import BackendError
from tinygrad_chat.kernels.cuda.launch import FOLDER, flags, source

NAME = "kernels"
ARCHITECTURES = ("sm_80", "sm_90", "sm_100")
REALS = ("float32", "bfloat16")
USED = re.compile(
    r"Compiling entry function '(?P<kernel>\w+)' for '(?P<architecture>\w+)'.*?"
    r"(?P<spill_stores>\d+) bytes spill stores, (?P<spill_loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers(?:[^\n]*?(?P<shared>\d+) bytes smem)?",
    re.DOTALL,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--results", type=turns.folder, default=turns.RESULTS, help="folder for JSON (bench/results)")


def measure(arguments: argparse.Namespace) -> None:
    rows = compile_all()
    print(f"{'':<28} {'':<9} " + " ".join(f"{name:>14}" for name in ARCHITECTURES))
    for kernel in dict.fromkeys((row["kernel"], row["real"]) for row in rows):
        cells = {row["architecture"]: row for row in rows if (row["kernel"], row["real"]) == kernel}
        print(f"{kernel[0]:<28} {kernel[1]:<9} " + " ".join(f"{_cell(cells[name]):>14}" for name in ARCHITECTURES))
    print(f"written: {write_result(NAME, f'python -m bench {NAME}', {'rows': rows}, folder=arguments.results)}")


def _cell(row: dict[str, Any]) -> str:
    return f"{row['registers']} registers" + (f", {row['spilled']} B spilled" if row["spilled"] else "")


def compile_all() -> list[dict[str, Any]]:
    """Return a row for each kernel, type and architecture. Raises BackendError without nvcc, or where one fails."""
    if shutil.which("nvcc") is None:
        raise BackendError("expected nvcc, NVIDIA's compiler, on the PATH, found none; install the CUDA toolkit")
    jobs = [(path.name, real) for path in sorted(FOLDER.glob("*.cu")) for real in reals_of(path.name)]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        return [row for rows in pool.map(lambda job: compile_one(Path(folder), *job), jobs) for row in rows]


def reals_of(file: str) -> tuple[str, ...]:
    """Return the types that a file is compiled for: some kernels are written for bfloat16 alone."""
    return REALS if "REAL" in (FOLDER / file).read_text() else ("bfloat16",)


def compile_one(folder: Path, file: str, real: str) -> list[dict[str, Any]]:
    """Return the rows of one file for one type, compiled in `folder`. Raises BackendError where nvcc refuses it."""
    path = folder / f"{real}-{file}"
    path.write_text(source(file))
    targets = [f"-gencode=arch={name.replace('sm', 'compute')},code={name}" for name in ARCHITECTURES]
    kind = np.dtype(np.float32) if real == "float32" else None
    command = ["nvcc", "-fatbin", "-Werror", "all-warnings", "-Xptxas", "-v", *targets, *flags(kind)]
    done = subprocess.run(
        [*command, "-o", path.with_suffix(".fatbin"), path], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BackendError(f"{file} for {real}: nvcc refuses it: {done.stderr.strip()}")
    return [
        {
            "kernel": found["kernel"],
            "real": real,
            "architecture": found["architecture"],
            "registers": int(found["registers"]),
            "spilled": int(found["spill_stores"]) + int(found["spill_loads"]),
            "shared": int(found["shared"] or 0),
        }
        for found in USED.finditer(done.stderr)
    ]
