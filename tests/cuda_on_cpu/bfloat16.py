"""What CuPy 14.2 does with bfloat16 otherwise than NumPy: where it widens, the stand-in widens; what it cannot, the
stand-in refuses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
WIDENED = ("where", "clip")
"""Functions whose results are float32."""


def as_cupy_reads(function: Any, method: str, inputs: Sequence[Any], *, in_place: bool) -> Sequence[Any]:
    """Return a ufunc's inputs: those in bfloat16 as float32 where a float of Python's is among them, unless the result
    is written to an array that is there.

    Raises TypeError for a product of batches, and for a sum to places that may be the same.
    """
    if not any(getattr(x, "dtype", None) == BFLOAT16 for x in inputs):
        return inputs
    if function is np.matmul and max(x.ndim for x in inputs) > 2:
        raise TypeError("data type 'E' not understood: a product of batches in bfloat16")
    if method == "at":
        raise TypeError("cupy.add.at does not support bfloat16")
    return widened(inputs) if not in_place and any(type(x) is float for x in inputs) else inputs


def widened(inputs: Sequence[Any]) -> list[Any]:
    """Return inputs, those in bfloat16 as float32."""
    return [x.astype(np.float32) if getattr(x, "dtype", None) == BFLOAT16 else x for x in inputs]
