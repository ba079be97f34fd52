"""How kernels are compiled, and the form of the arrays that are passed to them."""

from __future__ import annotations

import contextlib
import functools
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba.core import config

if getattr(config, "DISABLE_JIT", False):
    raise ImportError("NUMBA_DISABLE_JIT is set, and uncompiled these kernels take minutes per step")

from tinygrad_chat.ops.shape import rows_of

# Fast-math flags: what the compiler may do beyond IEEE's rules, each for its speed.
# - reassoc: sum a row in several lanes at once. Without it no sum is vectorised. The order differs, but loses no more
#   than any other. A formula that is exact only as written must not have it (exponential.py).
# - contract: fuse a product and a sum, which rounds once instead of twice.
# - nsz: ignore the sign of zero; otherwise a sum could not start from 0.
# The other flags would lose what we need. nnan and ninf: a diverged run must show as nan, and minus infinity masks a
# score. arcp and afn: a quotient, a root or a logarithm must be rounded like NumPy's. tests/kernels/test_arithmetic.py
# checks that.
ARITHMETIC = {"reassoc", "contract", "nsz"}


IN_ORDER = ARITHMETIC - {"reassoc"}
"""For products that overflow only if they are reordered."""


def compiled(
    function: Callable[..., Any], *, arithmetic: set[str] = ARITHMETIC, threads: bool = False, inlined: bool = False
) -> Any:
    """Compile `function` at its first call with each set of types; it runs without the GIL.

    The machine code is cached on disk beside the source, or else in the user's cache folder, until a source file that
    went into it changes. If neither folder is writable, or the disk is full, every process compiles for itself.
    """
    options = {"fastmath": arithmetic, "parallel": threads, "forceinline": inlined}
    compile_with = functools.partial(numba.njit, nogil=True, error_model="numpy", **options)
    try:
        kept: Any = compile_with(cache=True)(function)
        save = kept._cache.save_overload

        def save_if_there_is_room(*overload: Any) -> None:
            with contextlib.suppress(OSError):
                save(*overload)

        kept._cache.save_overload = save_if_there_is_room
        kept._cache._cache_file._source_stamp = _stamp(function.__module__)
        return kept
    except RuntimeError:  # Numba found no folder to write to
        return compile_with()(function)


compiled_for_threads = functools.partial(compiled, threads=True)
"""Compile a function whose loop over `prange` is divided among threads."""

inlined = functools.partial(compiled, inlined=True)
"""Compile a function that compiled functions call: it becomes a part of each of them.

Numba would otherwise keep a copy of it, under one name, in the machine code of each caller. Which copy a process then
calls depends on what it has compiled or loaded before, and the compiler may have summed in another order in each: the
first use of a kernel would round differently from later ones.
"""


@functools.cache
def _stamp(module: str) -> tuple[tuple[float, int, str], ...]:
    """Return what tells one version of a module's compiled code from another.

    Numba would look at the module's own file alone, but constants and functions of others are compiled into it, too.
    """
    stats = [(file.stat(), file.name) for file in _sources(module)]
    return tuple(sorted((stat.st_mtime, stat.st_size, name) for stat, name in stats))


@functools.cache
def _sources(module: str) -> frozenset[Path]:
    """Return the file of a module and those it imports from; for files in this folder, also what they import from."""
    file = Path(sys.modules[module].__file__ or "")
    imported = re.findall(r"^from (tinygrad_chat\.[\w.]+) import", file.read_text("utf-8"), re.MULTILINE)
    further = (
        _sources(name) if name.startswith(f"{__package__}.") else {Path(sys.modules[name].__file__ or "")}
        for name in imported
    )
    return frozenset({file}).union(*further)


def contiguous(x: np.ndarray) -> np.ndarray:
    """Return x, copied if it is non-contiguous, misaligned or read-only.

    Every array passed to compiled code comes from here or was created in a kernel: any other layout would be another
    type to Numba, and cost a second of compiling instead of a copy.
    """
    return x if x.flags.carray else np.array(x, order="C")


def as_rows(x: np.ndarray) -> np.ndarray:
    """Return x (..., C) as a contiguous matrix (N, C), a view if possible."""
    return rows_of(contiguous(x))
