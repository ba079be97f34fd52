"""AdamW's update in slices that stay in the cache from one pass to the next."""

from __future__ import annotations

import numpy as np

from tinygrad_chat.optim import adamw

SLICE = 1 << 15  # elements: some eight arrays of this length fit in a core's L2


def adamw_update(
    data: np.ndarray, gradient: np.ndarray, mean: np.ndarray, square: np.ndarray, *, decayed: int, **settings: float
) -> None:
    """`optim.adamw.adamw_update`; its reference, slice by slice."""
    for start in range(0, len(data), SLICE):
        part = slice(start, start + SLICE)
        adamw.adamw_update(
            data[part], gradient[part], mean[part], square[part], decayed=max(0, decayed - start), **settings
        )
