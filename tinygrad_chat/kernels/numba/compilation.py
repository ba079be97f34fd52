"""How kernels are compiled, and the form of the arrays that they are handed."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba.core import config

if getattr(config, "DISABLE_JIT", False):
    raise ImportError("NUMBA_DISABLE_JIT is set, and uncompiled these kernels take minutes a step")

# Sums may be taken in any order and a product joined with a sum, but nan and the infinities keep their meaning:
# a diverged run must show as nan, and minus infinity hides a score.
ARITHMETIC = {"reassoc", "contract", "nsz"}


def compiled(function: Callable[..., Any]) -> Any:
    """Compile `function` at its first call with each set of types; other Python threads run while it does.

    The machine code is kept on disk beside the source, or else in the user's cache folder. Where neither can be
    written, or the disk is full, every process compiles for itself.
    """
    compile_with = functools.partial(numba.njit, nogil=True, error_model="numpy", fastmath=ARITHMETIC)
    try:
        kept: Any = compile_with(cache=True)(function)
        save = kept._cache.save_overload

        def save_if_there_is_room(*overload: Any) -> None:
            with contextlib.suppress(OSError):
                save(*overload)

        kept._cache.save_overload = save_if_there_is_room
        return kept
    except RuntimeError:  # Numba found no folder to write to
        return compile_with()(function)


def as_rows(x: np.ndarray) -> np.ndarray:
    """Return x (..., C) as a contiguous matrix (N, C), a view where it can be: one compiled form serves all layouts."""
    return np.ascontiguousarray(x).reshape(-1, x.shape[-1])
