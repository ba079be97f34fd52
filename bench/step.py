"""Tokens per second of a whole training step, ours and PyTorch's.

Each engine lives in a process of its own; they take turns, so that the machine's moods meet all of them. Same initial
weights, same batches, AdamW, clipping, float32, all cores. The losses of the first steps must agree before anything
is timed. Quoted is the median over the rounds of the ratio within a round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

from bench.configurations import CONFIGURATIONS
from bench.record import write_result
from bench.worker import ENGINES

NAME = "step"
AGREEING = 20  # steps whose losses are compared
TOLERANCE = 2e-3  # relative, in float32 after 20 steps that each depend on the last
TOLERANCES = {"torch bfloat16": 5e-2}  # eight bits of mantissa
ROUND_SECONDS = 1.5  # how long each engine runs at its turn


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=11, help="turns of each engine")
    parser.add_argument("--configurations", nargs="+", default=["micro", "shakespeare-cpu"], choices=CONFIGURATIONS)


def measure(arguments: argparse.Namespace) -> None:
    if find_spec("torch") is None:
        raise SystemExit("PyTorch, the peer, is not installed: pip install -e '.[peers]'")
    rows = []
    for name in arguments.configurations:
        rows += _measure_one(name, arguments.rounds)
    for row in rows:
        print(
            f"{row['configuration']:<16} {row['engine']:<14} {row['tokens_per_second']:>9,.0f} tokens/s   "
            f"{row['peak_mib']:>6.0f} MiB   ours / this: {row['ours_over_this']:.2f}"
        )
    command = f"python -m bench step --rounds {arguments.rounds} --configurations {' '.join(arguments.configurations)}"
    print(f"written: {write_result('step', command, {'rows': rows}, packages=('torch',))}")


def _measure_one(name: str, rounds: int) -> list[dict[str, Any]]:
    workers = {engine: _Worker(engine, name) for engine in ENGINES}
    try:
        losses = {engine: worker.run(AGREEING)["losses"] for engine, worker in workers.items()}
        ours = losses["tinygrad_chat"]
        for engine, theirs in losses.items():
            difference = max(abs(a - b) / abs(b) for a, b in zip(ours, theirs, strict=True))
            if difference > TOLERANCES.get(engine, TOLERANCE):
                raise SystemExit(f"{name}: losses of {engine} differ from ours by {difference:.1e}; nothing was timed")
        counts = {e: max(3, int(ROUND_SECONDS / statistics.median(w.run(5)["seconds"]))) for e, w in workers.items()}
        samples: dict[str, list[float]] = {engine: [] for engine in workers}
        peaks: dict[str, float] = {}
        for _ in range(rounds):
            for engine, worker in workers.items():
                answer = worker.run(counts[engine])
                samples[engine].append(statistics.median(answer["seconds"]))
                peaks[engine] = answer["peak_mib"]
    finally:
        for worker in workers.values():
            worker.close()
    return [
        {
            "configuration": name,
            "engine": engine,
            "tokens_per_second": CONFIGURATIONS[name].tokens / statistics.median(samples[engine]),
            "ours_over_this": statistics.median(
                theirs / ours for ours, theirs in zip(samples["tinygrad_chat"], samples[engine], strict=True)
            ),
            "peak_mib": peaks[engine],
            "final_loss_of_comparison": losses[engine][-1],
            "seconds_a_step": samples[engine],
        }
        for engine in workers
    ]


class _Worker:
    def __init__(self, engine: str, name: str) -> None:
        command = [sys.executable, "-m", "bench.worker", engine, name]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, steps: int) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        print(steps, file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()
