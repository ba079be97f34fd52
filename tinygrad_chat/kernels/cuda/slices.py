"""Neighbouring slices of one array, taken as one: so that one product does for several layers of one input."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any, TypeVar

from tinygrad_chat.backend import array_module
from tinygrad_chat.kernels.cuda.launch import contiguous
from tinygrad_chat.ops.shape import rows_of

Item = TypeVar("Item")


def joined(pieces: Sequence[Any], axis: int) -> Any:
    """Return a view of all pieces, or None unless they are slices of one array that follow one another along `axis`."""
    if len(pieces) == 1:
        return pieces[0]
    first, end, length = pieces[0], pieces[0].data.ptr, 0
    shape = list(first.shape)
    for x in pieces:
        shape[axis] = x.shape[axis]
        alike = x.dtype == first.dtype and x.shape == tuple(shape) and x.strides == first.strides
        if not alike or x.data.ptr != end or _owner(x) is not _owner(first):
            return None
        end += x.shape[axis] * x.strides[axis]
        length += x.shape[axis]
    shape[axis] = length
    return array_module(first).lib.stride_tricks.as_strided(first, tuple(shape), first.strides)


def runs(items: Sequence[Item], join: Callable[[Sequence[Item]], Any]) -> Iterator[tuple[slice, Any]]:
    """Yield the longest runs of items that `join` makes one of, as their slice and what it returns; it returns None for
    items that it cannot join, but never for a single one."""
    start = 0
    while start < len(items):
        end, whole = start + 1, join(items[start : start + 1])
        while end < len(items) and (more := join(items[start : end + 1])) is not None:
            end, whole = end + 1, more
        yield slice(start, end), whole
        start = end


def empty_neighbours(pieces: Sequence[Any]) -> list[Any]:
    """Return an array for each piece (..., C), not filled yet: slices of one array if all have the same rows."""
    xp, first, widths = array_module(pieces[0]), pieces[0], [x.shape[-1] for x in pieces]
    if any(x.shape[:-1] != first.shape[:-1] for x in pieces):
        return [xp.empty(x.shape, x.dtype) for x in pieces]
    return split_columns(xp.empty((*first.shape[:-1], sum(widths)), first.dtype), widths)


def split_columns(x: Any, widths: Sequence[int]) -> list[Any]:
    """Return slices of x (..., C) of these widths, side by side."""
    return [x[..., end - width : end] for end, width in zip(accumulate(widths), widths, strict=True)]


def dense_rows(x: Any, real: Any) -> Any:
    """Return x (..., C) as rows (N, C) of type `real`, copied unless each is contiguous and all are equally far apart:
    for kernels that are told how far."""
    rows = rows_of(array_module(x).asarray(x, dtype=real))
    return rows if rows.shape[1] == 1 or rows.strides[1] == rows.itemsize else contiguous(rows, real)


def _owner(x: Any) -> Any:
    """Return the array, or a file in the host's memory, that x is a part of."""
    while getattr(x, "base", None) is not None:
        x = x.base
    return x
