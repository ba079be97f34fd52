"""What new tokens add to a key/value cache, written by one kernel."""

from __future__ import annotations

import math
from typing import Any

from tinygrad_chat.backend import array_module
from tinygrad_chat.kernels.cuda.launch import dense, launch, per_thread, width


def write_columns(key: Any, value: Any, keys: Any, values: Any, column: Any) -> None:
    """`nn.cache.write_columns`. An array `column` is read when the kernel runs."""
    if isinstance(column, int):
        keys, values, column = keys[:, column:], values[:, column:], None
    real, (_, T, C) = keys.dtype, key.shape
    key, value = (dense(array_module(keys).asarray(x, dtype=real)) for x in (key, value))
    arrays = key, value, keys, values
    apart = [stride // x.itemsize for x in arrays for stride in x.strides[:2]]
    each = width(math.gcd(C, *apart), *arrays)
    grid = per_thread(key.size, each), 2
    launch("cache.cu", "write_columns", real, grid, *arrays, column, key.size, T, C, *apart, each > 1)
