"""What `tgc plan` predicts against what `tgc train` then takes.

For each configuration, a plan and then the run itself, each as a process, as a user starts them, several times in turn.
Compared are the parameters and tokens, which must be equal, and the peak of the memory, the seconds of training and the
wall-clock seconds of the whole command: their medians over the rounds are to lie within 15 %.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.record import write_result

NAME = "plan"
WITHIN = 0.15
CONFIGURATIONS: dict[str, str] = {
    "tiny": "--layers 1 --width 16 --context 16 --steps 4000",
    "shakespeare-cpu": "--config shakespeare-cpu --steps 300",
    "wide, in parts": "--width 256 --context 128 --batch-size 16 --grad-accumulation 4 --steps 40",
    "bigram": "--model bigram --steps 3000",
    "scalar": "--mode scalar --steps 150",
}
EXACT = ("parameters", "tokens")
MEASURED = ("memory", "training_seconds", "wall_seconds")

# A process as small as can be starts the run: a peak is never less than what the starting process held.
STARTER = """
import json, resource, subprocess, sys, time
began = time.perf_counter()
code = subprocess.call(sys.argv[1:])
wall = time.perf_counter() - began
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << (0 if sys.platform == "darwin" else 10)
print(json.dumps({"wall_seconds": wall, "memory": peak}))
sys.exit(code)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", default="shakespeare", help="the tiny Shakespeare text, if it is at hand as a file")
    parser.add_argument("--configurations", nargs="+", default=list(CONFIGURATIONS), choices=CONFIGURATIONS)
    parser.add_argument("--steps", type=int, help="of every run, to try the measurement out")
    parser.add_argument("--rounds", type=int, default=3, help="plans and runs of each configuration")


def measure(arguments: argparse.Namespace) -> None:
    rows = []
    for name in arguments.configurations:
        flags = [*CONFIGURATIONS[name].split(), *(["--steps", str(arguments.steps)] if arguments.steps else [])]
        rounds = [_compare(name, [*flags, "--data", arguments.data]) for _ in range(arguments.rounds)]
        medians = {side: _medians([each[side] for each in rounds]) for side in ("predicted", "seen")}
        ratio = {quantity: medians["predicted"][quantity] / medians["seen"][quantity] for quantity in MEASURED}
        rows.append({"configuration": name, "flags": flags, **medians, "ratio": ratio, "rounds": rounds})
        _show(rows[-1])
    furthest = max(abs(row["ratio"][quantity] - 1) for row in rows for quantity in MEASURED)
    print(f"furthest from 1: {furthest:.1%}, to be within {WITHIN:.0%}")
    command = f"python -m bench plan --rounds {arguments.rounds}"
    print(f"written: {write_result('plan', command, {'furthest': furthest, 'within': WITHIN, 'rows': rows})}")
    if furthest > WITHIN:
        raise SystemExit(f"a prediction is off by more than {WITHIN:.0%}")


def _compare(name: str, flags: list[str]) -> dict[str, Any]:
    """Return what the plan predicts, what the run then takes, and the plan."""
    plan = json.loads(_tgc("plan", *flags, "--json")[-1])
    del plan["command"]  # it names where the text is at hand
    predicted = {
        "parameters": plan["parameters"],
        "tokens": plan["tokens"],
        "memory": plan["memory"],
        "training_seconds": plan["seconds"]["training"],
        "wall_seconds": plan["seconds"]["total"],
    }
    with tempfile.TemporaryDirectory() as folder:
        summary, used = map(json.loads, _tgc("train", *flags, "--json", "--out", str(Path(folder) / "run")))
    window = plan["tokens"] // plan["steps"]
    seen = {
        "parameters": summary["parameters"],
        "tokens": summary["step"] * window,
        "training_seconds": summary["seconds"],
        **used,
    }
    for quantity in EXACT:
        if predicted[quantity] != seen[quantity]:
            raise SystemExit(f"{name}: predicted {predicted[quantity]:,} {quantity}, the run has {seen[quantity]:,}")
    return {"predicted": predicted, "seen": seen, "plan": plan}


def _medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {quantity: statistics.median(each[quantity] for each in rounds) for quantity in rounds[0]}


def _tgc(*arguments: str) -> list[str]:
    """Run `tgc` and return the lines of its stdout; after `train`, a last one with what the process took."""
    command = [sys.executable, "-m", "tinygrad_chat", *arguments]
    starter = [sys.executable, "-c", STARTER] if arguments[0] == "train" else []
    done = subprocess.run([*starter, *command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"tgc {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.splitlines()


def _show(row: dict[str, Any]) -> None:
    for quantity in MEASURED:
        scale, unit = (2**20, "MiB") if quantity == "memory" else (1, "s")
        predicted, seen = row["predicted"][quantity] / scale, row["seen"][quantity] / scale
        print(
            f"{row['configuration']:<16} {quantity:<17} predicted {predicted:>8.2f} {unit:<3}  "
            f"seen {seen:>8.2f} {unit:<3}  ratio {row['ratio'][quantity]:.2f}",
            flush=True,
        )
