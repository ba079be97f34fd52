"""One chart of the results in bench/results: how many times as good ours is as the best peer, where we lose, too.

It measures nothing. It reads the JSON that the measurements wrote and takes the peer that does best in each row. Of the
single ops it shows the median, and each one that is slower than PyTorch's.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench import turns
from bench.chart import draw_ratios
from bench.record import RESULTS
from bench.startup import FIRST_USE, STEP
from bench.worker import FULL_PRECISION_TORCH

NAME = "chart"
PEERS = (*FULL_PRECISION_TORCH, "jax jit")
"""In the precision that ours computes in."""
OPS_OF = "10M"
"""The configuration whose ops are shown."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--results", type=turns.folder, default=RESULTS, help="folder of the JSON (bench/results)")


def measure(arguments: argparse.Namespace) -> None:
    draw_ratios(
        arguments.results,
        "overview",
        title="tinygrad_chat compared with the best peer, on two cores",
        remark="orange: that many times as fast, or as small; blue: slower; data: bench/results/*.json",
        groups=ratios(arguments.results),
    )


def ratios(results: Path = RESULTS) -> dict[str, dict[str, float]]:
    """Return, by heading and label, the ratio of ours to the best peer; above 1 ours is faster or smaller."""
    step, slow_step = _read(results / "step.json"), _read(results / "avx2" / "step.json")
    decode, memory = (_read(results / f"{name}.json") for name in ("decode", "memory"))
    upstream, startup, ops = (_read(results / f"{name}.json") for name in ("upstream", "startup", "ops"))
    starts = {row["engine"]: row["ours_over_this"] for row in startup["rows"] if row["what"] == STEP}
    of_ops = {
        row["op"]: row["ours_over_this"] for row in ops["rows"] if _is_peer(row) and row["configuration"] == OPS_OF
    }
    return {
        "A training step, with AVX-512": _worst(step["rows"], "configuration"),
        "A training step, without AVX-512": _worst(slow_step["rows"], "configuration"),
        "A training step of nanochat's GPT": {
            run["configuration"]: min(e["ours_over_this"] for e in run["engines"] if e["engine"] != turns.OURS)
            for run in upstream["runs"][:1]
        },
        "A whole training run, on an AMD EPYC": _whole_runs(results / "train.json"),
        "A whole training run, on an Intel Xeon": _whole_runs(results / "intel" / "train.json"),
        "Generating text": {
            f"{batch} sequence{'s' if batch > 1 else ''}": ratio
            for batch, ratio in _worst(decode["rows"], "batch").items()
        },
        "Peak memory of training": {
            name: 1 / share for name, share in _worst(memory["rows"], "configuration", max).items()
        },
        "From start to the first step": {
            "compiled before": starts["torch eager"],
            "the very first use": starts["torch eager"] / starts[FIRST_USE],
        },
        f"Single ops, compared with PyTorch eager ({OPS_OF})": {
            f"median of {len(of_ops)}": statistics.median(of_ops.values()),
            **{op: ratio for op, ratio in of_ops.items() if ratio < 1},
        },
    }


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _whole_runs(path: Path) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for row in _read(path)["rows"]:
        if row["engine"] != turns.OURS:
            found.setdefault(f"{row['configuration']}, {row['machine']}", []).append(row["this_over_ours"])
    return {label: min(ratios) for label, ratios in found.items()}


def _is_peer(row: Mapping[str, Any]) -> bool:
    return row["engine"] in PEERS


def _worst(rows: Iterable[Mapping[str, Any]], key: str, worst: Any = min) -> dict[Any, float]:
    """Return, for each value of `key`, our ratio to the best peer."""
    found: dict[Any, list[float]] = {}
    for row in filter(_is_peer, rows):
        found.setdefault(row[key], []).append(row["ours_over_this"])
    return {value: worst(all_of_it) for value, all_of_it in found.items()}
