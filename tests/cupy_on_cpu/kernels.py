"""Compile a program for the host: `python kernels.py LIBRARY` reads a cubin of nvrtc.cpp's from standard input.

Standard library only, and no module of the project's: it starts once for each of a thousand programs.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent
EMULATION = FOLDER.parent / "cuda_on_cpu"
FLAGS = ("-std=c++17", "-fPIC", "-U_FORTIFY_SOURCE", "-w")
INCLUDES = (f"-I{FOLDER / 'headers'}", f"-I{EMULATION}")
KERNEL = re.compile(r"__global__ void (?:__launch_bounds__\([\w, ]+\) )?(\w+) ?\(")
SHARED = re.compile(r"extern\s+__shared__\s+([\w ]+?)\s+(\w+)\[\];")  # of a size that a launch says: its type, its name


def compile_program(cubin: str, library: Path) -> None:
    """Write the library of a program's kernels, whole or not at all. Raises SystemExit with the compiler's errors."""
    options, _, source = cubin.partition("\n\n")
    options = [x for x in options.split("\n")[1:] if x.startswith(("-D", "-I"))]
    is_cupy_s = "#include <cupy/" in source
    if is_cupy_s:
        source = SHARED.sub(r"\1* \2 = reinterpret_cast<\1*>(emulated::dynamic_memory);", source)
    first = "cupy_kernels.h" if is_cupy_s else "emulation.h"
    entries = "\n".join(f"ENTRY({name})" for name in kernel_names(source, options))
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        path, made = Path(folder) / "kernels.cpp", Path(folder) / library.name
        path.write_text(f'#include "{first}"\n{source}\n#include "kernels.h"\n{entries}\n')
        flags = *FLAGS, "-O1" if is_cupy_s else "-O3", f"-I{library.parent}", *INCLUDES  # the folder: of the .gch file
        command = ["g++", "-shared", *flags, *options, "-o", str(made), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"cupy_on_cpu: {done.stderr}")
        made.replace(library)


def kernel_names(source: str, options: list[str]) -> list[str]:
    """Return the names of a program's kernels. They may be made by macros, but not by those of a header."""
    own = re.sub(r"^\s*#\s*include.*$", "", source, flags=re.MULTILINE)
    command = ["g++", "-E", "-P", "-x", "c++", "-std=c++17", *options, "-"]
    expanded = subprocess.run(command, input=own, capture_output=True, text=True, check=False).stdout
    return list(dict.fromkeys(KERNEL.findall(re.sub(r"\s+", " ", expanded))))


if __name__ == "__main__":
    compile_program(sys.stdin.read(), Path(sys.argv[1]))
