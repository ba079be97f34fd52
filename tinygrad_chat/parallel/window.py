"""Reduce-scatter and all-gather in memory that the ranks of one machine share.

Sent as messages, arrays would be copied once more, or read from the memory of a process that may end meanwhile.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tinygrad_chat.parallel.shared_memory import free_bytes

BYTES = 4 << 20
"""The size of each rank's piece of the window. Arrays pass through it in blocks that stay in the CPU caches."""
_give_way: Callable[[], object] = getattr(os, "sched_yield", functools.partial(time.sleep, 0))


class SharedWindow:
    """A piece of memory per rank, which only that rank writes and all ranks read. All make the same calls in order.

    The pieces are double-buffered: a block uses one half of each, with a barrier between writing and reading it, and
    the next block uses the other half. So when a rank comes back to the first half, all ranks have read it.
    """

    def __init__(self, pieces: Sequence[np.ndarray], rank: int, barrier: Callable[[], object]) -> None:
        self._halves = [[piece[: len(piece) // 2], piece[len(piece) // 2 :]] for piece in pieces]
        self._rank, self._barrier = rank, barrier
        self._turn = 0

    def reduce_scatter(self, array: np.ndarray, shares: Sequence[slice], into: np.ndarray) -> None:
        """Write this rank's share of the sum of all ranks' flat arrays to `into`, summed in the order of ranks."""
        ranks = len(self._halves)
        for pieces, blocks in self._blocks(shares, array.dtype, parts=ranks):
            room = len(pieces[0]) // ranks
            for rank, block in enumerate(blocks):
                pieces[self._rank][rank * room :][: block.stop - block.start] = array[block]
            self._barrier()
            own, share = blocks[self._rank], shares[self._rank]
            total = into[own.start - share.start : own.stop - share.start]
            of_ranks = [piece[self._rank * room :][: len(total)] for piece in pieces]
            total[:] = of_ranks[0]
            for received in of_ranks[1:]:
                total += received

    def all_gather(self, array: np.ndarray, shares: Sequence[slice]) -> None:
        """Copy each rank's share of the flat `array` to all ranks."""
        for pieces, blocks in self._blocks(shares, array.dtype):
            own = blocks[self._rank]
            pieces[self._rank][: own.stop - own.start] = array[own]
            self._barrier()
            for rank, block in enumerate(blocks):
                if rank != self._rank:
                    array[block] = pieces[rank][: block.stop - block.start]

    def _blocks(
        self, shares: Sequence[slice], dtype: np.dtype, parts: int = 1
    ) -> Iterator[tuple[list[np.ndarray], list[slice]]]:
        """Yield the current half of each piece, and each share's block that passes through it.

        A half has room for the blocks of `parts` shares.
        """
        room = len(self._halves[0][0]) // dtype.itemsize // parts
        for offset in range(0, max(share.stop - share.start for share in shares), room):
            pieces = [halves[self._turn][: room * parts * dtype.itemsize].view(dtype) for halves in self._halves]
            self._turn = 1 - self._turn
            yield pieces, [_part(share, offset, room) for share in shares]


def open_window(mpi: Any, world: Any) -> SharedWindow | None:
    """Return memory shared by all ranks of MPI's `world`; all must call this. None if they are on several machines, or
    if shared memory is scarce, as in containers."""
    size = world.Get_size()
    together = world.Split_type(mpi.COMM_TYPE_SHARED).Get_size() == size
    if not world.allreduce(together and free_bytes() >= 2 * BYTES * size, op=mpi.LAND):
        return None
    window = mpi.Win.Allocate_shared(BYTES, 1, comm=world)
    pieces = [np.frombuffer(window.Shared_query(rank)[0], np.uint8) for rank in range(size)]
    return SharedWindow(pieces, world.Get_rank(), functools.partial(_meet, world))


def _meet(world: Any) -> None:
    """Wait for all ranks, yielding the core: MPI's own barrier would keep it busy, though another rank may need it."""
    request = world.Ibarrier()
    while not request.Test():
        _give_way()


def _part(share: slice, offset: int, room: int) -> slice:
    """Return at most `room` elements of a share, from `offset` on."""
    start = min(share.start + offset, share.stop)
    return slice(start, min(start + room, share.stop))
