"""The machine's own rate: the best of a few large float32 products by NumPy, on all cores, in a process of its own.

    python -m bench.sgemm

A training step is mostly such products, so a share of this rate compares machines of different speed.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from bench.configurations import Configuration
from bench.turns import serve
from tinygrad_chat.models.size import flops_per_token

SIDE = 2048
PRODUCTS = 5


def share_of_sgemm(configuration: Configuration, seconds: float, sgemm_gflops: float) -> float:
    """Return the model's operations of a step over those that products alone would do in `seconds`."""
    flops = flops_per_token(configuration.options, configuration.vocabulary) * configuration.tokens
    return flops / seconds / (1e9 * sgemm_gflops)


def main() -> None:
    """Answer every line with the rate in GFLOP/s."""
    random = np.random.default_rng(0)
    x, y = (random.standard_normal((SIDE, SIDE), np.float32) for _ in range(2))
    out = np.empty_like(x)

    def rate(_: Any) -> float:
        seconds = []
        for _ in range(PRODUCTS):
            began = time.perf_counter()
            np.matmul(x, y, out=out)
            seconds.append(time.perf_counter() - began)
        return 2 * SIDE**3 / min(seconds) / 1e9

    serve(rate)


if __name__ == "__main__":
    main()
