"""What packing documents into rows of 2,048 tokens loses, of pydoc and of a mix of lengths as the web has them.

Three ways. `best fit` is `--packing best-fit`. `crop` is that of nanochat's data loader, from its description:
rows begin with a document, of 1,000 waiting ones the longest that fits comes next, and where none does, the shortest
is cropped to fill the row and its rest is lost. `windows` begin anywhere: nothing is lost, and nothing is whole.
Counted over one epoch: tokens that are no input, positions that are padding, and documents that would fit into a row
and do not stand whole in one.
"""

from __future__ import annotations

import argparse
from bisect import bisect_right, insort
from typing import Any

import numpy as np

from bench.record import write_result
from tinygrad_chat.text.data import open_data
from tinygrad_chat.text.packing import BLOCK, best_fit

NAME = "packing"
CONTEXT = 2048
WAITING = 1000  # documents that nanochat's loader chooses from
DOCUMENTS = 20_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=0, help="of the mix and of the order of documents")


def measure(arguments: argparse.Namespace) -> None:
    random = np.random.default_rng(arguments.seed)
    pydoc = np.diff(open_data("pydoc", "bytes").document_starts)
    corpora = {
        "pydoc, bytes": random.permutation(pydoc).tolist(),
        "web-like mix": np.clip(random.lognormal(6.5, 1.2, DOCUMENTS), 20, 100_000).astype(int).tolist(),
    }
    rows = []
    for corpus, lengths in corpora.items():
        for way, count in (("best fit", count_best_fit), ("crop", count_crop), ("windows", count_windows)):
            rows.append({"corpus": corpus, "documents": len(lengths), "way": way, **count(lengths)})
            shares = [f"{name.replace('_', ' ')} {100 * rows[-1][name]:.2f} %" for name in ("lost", "padding", "cut")]
            print(f"{corpus:14} {way:9} " + "   ".join(shares))
    write_result(NAME, f"python -m bench {NAME}", {"context": CONTEXT, "seed": arguments.seed, "rows": rows})


def count_best_fit(lengths: list[int]) -> dict[str, float]:
    """Count in blocks of as many rows as `PackedRows` packs together."""
    ends = np.cumsum(lengths)
    blocks = np.split(np.array(lengths), np.flatnonzero(np.diff((ends - lengths) // (BLOCK * CONTEXT))) + 1)
    packed = [best_fit(block.tolist(), CONTEXT) for block in blocks]
    cut = 0
    for block, rows in zip(blocks, packed, strict=True):
        pieces = np.bincount([number for row in rows for number, _, _ in row], minlength=len(block))
        cut += int(((pieces > 1) & (block <= CONTEXT)).sum())
    positions = CONTEXT * sum(map(len, packed))
    return _shares(lengths, lost=0, padding=positions - sum(lengths), positions=positions, cut=cut)


def count_crop(lengths: list[int]) -> dict[str, float]:
    """Count as nanochat's loader packs: rows of `CONTEXT` + 1 tokens, the last of which is a target only."""
    stream, waiting = iter(lengths), sorted(lengths[:WAITING])
    for _ in range(len(waiting)):
        next(stream)
    positions = lost = cut = 0
    while len(waiting) == min(WAITING, len(lengths)):  # while there are more to come
        room = CONTEXT + 1
        while room and waiting:
            fitting = bisect_right(waiting, room) - 1
            length = waiting.pop(max(fitting, 0))  # the shortest is cropped
            lost += max(0, length - room)
            cut += room < length <= CONTEXT
            room -= min(length, room)
            if (new := next(stream, None)) is not None:
                insort(waiting, new)
        positions += CONTEXT
    used = sum(lengths) - sum(waiting)
    return _shares(lengths, lost=lost, padding=0, positions=positions, cut=cut, tokens=used)


def count_windows(lengths: list[int]) -> dict[str, float]:
    """Count where rows follow each other through the text."""
    ends = np.cumsum(lengths)
    starts = ends - lengths
    inside = np.array(lengths) <= CONTEXT
    cut = int((inside & (starts // CONTEXT != (ends - 1) // CONTEXT)).sum())
    return _shares(lengths, lost=0, padding=0, positions=sum(lengths), cut=cut)


def _shares(
    lengths: list[int], *, lost: int, padding: int, positions: int, cut: int, tokens: int | None = None
) -> dict[str, Any]:
    fitting = sum(length <= CONTEXT for length in lengths)
    return {"lost": lost / (tokens or sum(lengths)), "padding": padding / positions, "cut": cut / fitting}
