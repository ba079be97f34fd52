"""AdamW's update in slices that stay in the cache from one pass to the next."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinygrad_chat.optim import adamw

SLICE = 1 << 15  # elements: some eight arrays of this length fit in a core's L2


def adamw_update(
    data: np.ndarray,
    gradient: np.ndarray,
    mean: np.ndarray,
    square: np.ndarray,
    scalars: Sequence[float],
    *,
    decayed: int,
    compute_weights: None = None,
    grad_scale: None = None,
) -> None:
    """The reference, `optim.adamw.adamw_update`, slice by slice.

    On the host there are no separate compute weights, and the gradient has already been scaled.
    """
    for start in range(0, len(data), SLICE):
        part = slice(start, start + SLICE)
        adamw.adamw_update(
            data[part], gradient[part], mean[part], square[part], scalars, decayed=max(0, decayed - start)
        )
