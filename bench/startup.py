"""Seconds from the start of a process: to its end for imports and `tgc --help`, or to the end of a first training step.

`import tinygrad_chat` loads a name when it is first used, so the import of our GPT, with NumPy, has a row of its own.
Every sample is a fresh process, and the processes take turns. They start once before anything is timed: that warms
the disk's cache, and the losses of their first step must agree. The step is that of the micro configuration; ours draws
its weights, peers read them from a file. PyTorch compiles the step anew, or again: then it finds on the disk what it
compiled before. So do our compiled kernels, with a row for the very first use.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench import turns
from bench.chart import Bars, draw_bars, times
from bench.configurations import CONFIGURATIONS
from bench.record import write_result
from bench.worker import ENGINES

NAME = "startup"
CONFIGURATION = CONFIGURATIONS["micro"]
IMPORT, IMPORT_GPT, HELP, STEP = "import", "import GPT", "tgc --help", "first step"
LIBRARIES = {turns.OURS: "tinygrad_chat", "torch eager": "torch", "jax jit": "jax"}
AGAIN = "torch compile, again"
FIRST_USE = "tinygrad_chat, first use"
OURS = (turns.OURS, FIRST_USE)
STEPPING = (*OURS, "torch eager", "torch compile", AGAIN, "jax jit")
COMPILED_BEFORE = "TORCHINDUCTOR_CACHE_DIR"  # where PyTorch keeps what it has compiled
OURS_COMPILED_BEFORE = "NUMBA_CACHE_DIR"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    turns.add_arguments(parser)


def measure(arguments: argparse.Namespace) -> None:
    engines = turns.present_engines(STEPPING)
    losses: dict[str, list[float]] = {}
    with turns.initial_weights(CONFIGURATION) as weights, tempfile.TemporaryDirectory() as folder:
        starts = _starts(engines, weights, Path(folder), losses)
        turns.progress(f"{NAME}: starting each once, comparing the first losses")
        for start in starts.values():
            start()
        turns.expect_agreement(NAME, losses, {name: ENGINES[_engine(name)].tolerance for name in losses})
        samples: dict[tuple[str, str], list[float]] = {key: [] for key in starts}
        for key in turns.take_turns(list(starts), arguments.rounds, NAME):
            samples[key].append(starts[key]())
    rows = [
        {
            "what": what,
            "engine": name,
            "seconds": statistics.median(seconds),
            "ours_over_this": turns.ratio(seconds, to=samples[what, turns.OURS]),
            "samples": seconds,
        }
        for (what, name), seconds in samples.items()
    ]
    print(f"{'':<12} {'':<22} {'seconds':>8} {'this / ours':>12}")
    for row in rows:
        print(f"{row['what']:<12} {row['engine']:<22} {row['seconds']:>8.3f} {row['ours_over_this']:>12.1f}")
    command, packages = turns.command_of(NAME, arguments), turns.peer_packages(engines)
    print(f"written: {write_result(NAME, command, {'rows': rows}, packages=packages, folder=arguments.results)}")
    _draw(rows, arguments)


def _starts(
    engines: Sequence[str], weights: str, folder: Path, losses: dict[str, list[float]]
) -> dict[tuple[str, str], Callable[[], float]]:
    """Return what is measured, by what it is and whose: functions that start a process and return its seconds. Those
    that take a step leave its loss in `losses`."""
    starts: dict[tuple[str, str], Callable[[], float]] = {}
    for engine, library in LIBRARIES.items():
        if engine in engines:
            starts[IMPORT, engine] = lambda library=library: _seconds_of("-c", f"import {library}")
    starts[IMPORT_GPT, turns.OURS] = lambda: _seconds_of("-c", "from tinygrad_chat import GPT")
    starts[HELP, turns.OURS] = lambda: _seconds_of("-m", "tinygrad_chat", "--help")

    def first_step(name: str) -> float:
        cache = folder / "kept" if name == AGAIN else Path(tempfile.mkdtemp(dir=folder))
        arguments = (_engine(name), CONFIGURATION.sizes, weights)
        began = time.perf_counter()
        kept = {COMPILED_BEFORE: str(cache)} | ({OURS_COMPILED_BEFORE: str(cache)} if name == FIRST_USE else {})
        worker = turns.Worker("bench.worker", *arguments, environment={**os.environ, **kept})
        losses[name] = worker.ask(1)["losses"]
        seconds = time.perf_counter() - began
        worker.close()
        return seconds

    for name in engines:
        starts[STEP, name] = lambda name=name: first_step(name)
    return starts


def _seconds_of(*arguments: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def _engine(name: str) -> str:
    """Return the engine whose first step is measured under this name."""
    return {AGAIN: "torch compile", FIRST_USE: turns.OURS}.get(name, name)


def _draw(rows: Sequence[dict[str, Any]], arguments: argparse.Namespace) -> None:
    whats = list(dict.fromkeys(row["what"] for row in rows))
    by_place = {(row["what"], row["engine"]): row["seconds"] for row in rows}
    names = [name for what, name in by_place if what == STEP]
    bars = []
    for name in names:
        seconds = [by_place.get((what, name)) for what in whats]
        bars.append(Bars(name, seconds, ["" if each is None else f"{each:.2f}" for each in seconds]))
    gains = {
        what: [row["ours_over_this"] for row in rows if row["what"] == what and row["engine"] not in OURS]
        for what in whats
    }
    draw_bars(
        arguments.results,
        NAME,
        title="From the start of a process",
        remark="seconds; the ratio is the fastest peer's over ours",
        groups=whats,
        bars=bars,
        ratios=[times(min(of_peers)) if of_peers else "" for of_peers in gains.values()],
    )
