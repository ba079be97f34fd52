"""Measure the machine's limits: large matrix products in the run's precision, memory copies, and the cost of a call."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tinygrad_chat import ops
from tinygrad_chat.autograd import computing_with, find_kernel
from tinygrad_chat.backend import Backend, Compute
from tinygrad_chat.ops.dropout import uniform

TIMES = 5
SIDES = {"numpy": 2048}  # sides of square matrices
SIDE_ON_DEVICE = 8192
COPIED = 256 << 20  # bytes: far larger than any cache
CALLS = 200  # one after another, to measure one


@dataclass(frozen=True)
class Limits:
    """`product_rate` in operations per second, `bandwidth` in bytes per second, reads plus writes.

    `call` is in seconds, of a call that has next to nothing to do: on a device, the launch of a kernel.
    """

    product_rate: float
    bandwidth: float
    call: float = 0.0


def measure_limits(compute: Compute) -> Limits:
    """Measure the machine's limits: the best of a few matrix products, copies and series of calls."""
    backend = compute.backend
    source = backend.xp.ones(COPIED // 4, "float32")
    target = backend.xp.empty_like(source)

    def copy() -> None:
        target[...] = source

    def call() -> None:
        for _ in range(CALLS):
            number.fill(1)  # by a kernel: zeros would be written without one

    number = backend.xp.zeros(1, "float32")
    bandwidth = 2 * source.nbytes / _least_seconds(backend, copy)
    return Limits(measure_product_rate(compute), bandwidth, _least_seconds(backend, call) / CALLS)


def measure_product_rate(compute: Compute) -> float:
    """Measure the operations per second of matrix products: the best of a few."""
    backend = compute.backend
    side = SIDES.get(backend.name, SIDE_ON_DEVICE)
    x, weight = (_drawn(backend.xp, seed, side).astype(compute.array_dtype) for seed in range(2))
    with computing_with(compute):
        linear = find_kernel(ops.linear, ops.linear.reference, x)
        return 2 * side**3 / _least_seconds(backend, lambda: linear(x, weight))


def _drawn(xp: Any, seed: int, side: int) -> Any:
    """Return a random matrix: with equal numbers a device would draw less power, and run unrealistically fast."""
    return uniform(xp, seed, 0, side * side).reshape(side, side) - 0.5


def _least_seconds(backend: Backend, work: Callable[[], Any]) -> float:
    work()
    marks = [backend.mark()]
    for _ in range(TIMES):
        work()
        marks.append(backend.mark())
    backend.synchronize()
    return min(backend.seconds_between(begin, end) for begin, end in itertools.pairwise(marks))
