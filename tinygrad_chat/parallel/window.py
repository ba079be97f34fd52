"""Sums and copies of arrays in memory that the ranks of one machine share.

As messages these arrays would be copied once more, or read from the memory of a process that may end meanwhile.
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
"""Each rank's piece of the window. Arrays pass through it in blocks, which stay in the processors' caches."""
_give_way: Callable[[], object] = getattr(os, "sched_yield", functools.partial(time.sleep, 0))


class SharedWindow:
    """A piece of memory for each rank, which that rank writes and all ranks read. All make the same calls in order.

    A block takes one half of each piece. Between writing and reading it, all ranks meet at the barrier. The next block
    takes the other half. So a rank that returns to the first half knows that all ranks have read it.
    """

    def __init__(self, pieces: Sequence[np.ndarray], rank: int, barrier: Callable[[], object]) -> None:
        self._halves = [[piece[: len(piece) // 2], piece[len(piece) // 2 :]] for piece in pieces]
        self._rank, self._barrier = rank, barrier
        self._turn = 0

    def reduce_scatter(self, array: np.ndarray, shares: Sequence[slice], into: np.ndarray) -> None:
        """Write this rank's share of the sum of all ranks' flat arrays into `into`, added up in the order of ranks."""
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
        """Yield halves of all pieces and, for each share, the block of it that passes through them.

        A half has room for the blocks of `parts` shares.
        """
        room = len(self._halves[0][0]) // dtype.itemsize // parts
        for offset in range(0, max(share.stop - share.start for share in shares), room):
            pieces = [halves[self._turn][: room * parts * dtype.itemsize].view(dtype) for halves in self._halves]
            self._turn = 1 - self._turn
            yield pieces, [_part(share, offset, room) for share in shares]


def open_window(mpi: Any, world: Any) -> SharedWindow | None:
    """Return memory that all ranks of MPI's `world` share; all must call this. None where they are on several machines,
    or where there is little memory to share, as in containers."""
    size = world.Get_size()
    together = world.Split_type(mpi.COMM_TYPE_SHARED).Get_size() == size
    if not world.allreduce(together and free_bytes() >= 2 * BYTES * size, op=mpi.LAND):
        return None
    window = mpi.Win.Allocate_shared(BYTES, 1, comm=world)
    pieces = [np.frombuffer(window.Shared_query(rank)[0], np.uint8) for rank in range(size)]
    return SharedWindow(pieces, world.Get_rank(), functools.partial(_meet, world))


def _meet(world: Any) -> None:
    """Wait for all ranks. MPI's own barrier keeps a core busy, which another rank needs on oversubscribed cores."""
    request = world.Ibarrier()
    while not request.Test():
        _give_way()


def _part(share: slice, offset: int, room: int) -> slice:
    """Return at most `room` elements of a share, from `offset` on."""
    start = min(share.start + offset, share.stop)
    return slice(start, min(start + room, share.stop))
