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

from tinygrad_chat.ops.shape import rows_of

# What the compiler may do beyond IEEE's rules, each for its speed:
# - reassoc: add up a row in several lanes at once. Without it no sum is vectorised; the order is another, and what is
#   lost is what any order loses. A formula that is exact as it is written only must not have it (exponential.py).
# - contract: join a product with a sum, and so round once instead of twice.
# - nsz: take 0 and -0 for one, without which a sum could not begin at 0.
# The other permissions lose what we need. nnan and ninf: a diverged run must show as nan, and minus infinity hides a
# score. arcp and afn: a quotient, a root or a logarithm must be rounded as NumPy's. tests/kernels/test_arithmetic.py
# holds that.
ARITHMETIC = {"reassoc", "contract", "nsz"}


IN_ORDER = ARITHMETIC - {"reassoc"}
"""For products that only overflow in another order."""


def compiled(function: Callable[..., Any], *, arithmetic: set[str] = ARITHMETIC, threads: bool = False) -> Any:
    """Compile `function` at its first call with each set of types; other Python threads run while it does.

    The machine code is kept on disk beside the source, or else in the user's cache folder. Where neither can be
    written, or the disk is full, every process compiles for itself.
    """
    compile_with = functools.partial(numba.njit, nogil=True, error_model="numpy", fastmath=arithmetic, parallel=threads)
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


compiled_for_threads = functools.partial(compiled, threads=True)
"""Compile a function whose loop over `prange` is shared out among threads."""


def contiguous(x: np.ndarray) -> np.ndarray:
    """Return x, copied where it does not lie in one piece, begins between two numbers or must not be written to.

    All that compiled code is handed comes from here or was made in a kernel: each other kind of array would be another
    type to Numba, so that a second of compiling would take the place of a copy.
    """
    return x if x.flags.carray else np.array(x, order="C")


def as_rows(x: np.ndarray) -> np.ndarray:
    """Return x (..., C) as a contiguous matrix (N, C), a view where it can be."""
    return rows_of(contiguous(x))
