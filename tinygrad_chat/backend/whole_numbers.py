"""Tokens and targets as a device holds them: in int32, half the bytes of what the host draws."""

from __future__ import annotations

from typing import Any

import numpy as np

RANGE = np.iinfo(np.int32)


def narrowed(x: Any) -> Any:
    """Return an array of whole numbers in int32, or as it is if it is no wider than that, or of another kind.

    A number that does not fit becomes the nearest that does, which is in no vocabulary either: wrapped around it might
    be.
    """
    if x.dtype.kind not in "iu" or np.can_cast(x.dtype, np.int32):
        return x
    return x.clip(0 if x.dtype.kind == "u" else RANGE.min, RANGE.max).astype(np.int32)
