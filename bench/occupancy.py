"""How many blocks of a kernel a multiprocessor holds at once, by the rules that NVIDIA's occupancy calculator follows.

Registers are given to warps in units, within a quarter of a multiprocessor each; shared memory is given to blocks,
with a little more for the system; and threads and blocks have limits of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

WARP = 32  # threads
QUARTERS = 4  # of a multiprocessor, each with its own registers
REGISTERS = 65_536  # of a multiprocessor
REGISTER_UNIT = 256  # of a warp
SHARED_UNIT = 128  # bytes
SYSTEM_SHARED = 1024  # bytes of each block that the system keeps for itself


@dataclass(frozen=True)
class Multiprocessor:
    """What one multiprocessor has; `shared` in bytes, of all its blocks."""

    shared: int
    warps: int = 64
    blocks: int = 32


MULTIPROCESSORS = {
    "sm_80": Multiprocessor(164 << 10),
    "sm_90": Multiprocessor(228 << 10),
    "sm_100": Multiprocessor(228 << 10),
}

FLASH = {
    (64, "flash_attention"): (128, (48 << 10) + 512),
    (64, "flash_delta"): (128, 0),
    (64, "flash_backward_keys"): (128, (48 << 10) + 2048),
    (64, "flash_backward_queries"): (128, (48 << 10) + 1536),
    (128, "flash_attention"): (128, (80 << 10) + 256),
    (128, "flash_delta"): (128, 0),
    (128, "flash_backward_keys"): (128, (64 << 10) + 1024),
    (128, "flash_backward_queries"): (128, (64 << 10) + 768),
}
"""(channels of a head, kernel) -> as below, whichever way products are computed"""

THREADS = 256  # of a block, where nothing else is said below
LAUNCHED = {
    ("cross_entropy.cu", "cross_entropy_at_once"): (512, 0),
    **{
        (f"{name}_{D}.cu", kernel): block
        for (D, kernel), block in FLASH.items()
        for name in ("flash_attention", "flash_attention_wgmma")
    },
    ("flash_decoding.cu", "flash_decoding_split"): (128, 0),
    ("flash_decoding.cu", "flash_decoding_combine"): (128, 0),
}
"""(file, kernel) -> threads of a block, at most, and bytes of dynamic shared memory, as the launchers have them"""


def launched(file: str, kernel: str) -> tuple[int, int]:
    """Return the threads of a kernel's largest block, and the bytes of its dynamic shared memory."""
    return LAUNCHED.get((file, kernel), (THREADS, 0))


def blocks_held(architecture: str, *, threads: int, registers: int, shared: int) -> int:
    """Return how many blocks a multiprocessor holds at once, for `registers` of a thread and `shared` bytes of a block.

    >>> blocks_held("sm_90", threads=256, registers=32, shared=0)
    8
    """
    has = MULTIPROCESSORS[architecture.removesuffix("a")]  # what sm_90a adds to sm_90 is instructions
    warps = _whole(threads, WARP)
    of_a_warp = REGISTER_UNIT * _whole(registers * WARP, REGISTER_UNIT)
    by_registers = QUARTERS * (REGISTERS // QUARTERS // of_a_warp) // warps
    by_shared = has.shared // (SHARED_UNIT * _whole(shared + SYSTEM_SHARED, SHARED_UNIT))
    return min(has.blocks, has.warps // warps, by_registers, by_shared)


def _whole(size: int, unit: int) -> int:
    return -(-size // unit)
