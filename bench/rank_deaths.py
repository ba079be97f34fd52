"""Ranks that are killed: two train, one of them dies at a random moment, and the same command goes on with --resume.

Each death must end all ranks within ten seconds with one line, exit code 3, and no half checkpoint; each start goes on
where the last checkpoint was. In the end the log must be that of a run that nobody killed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from bench import turns
from bench.record import write_result
from tinygrad_chat.runs.checkpoint import find_checkpoints, step_of

NAME = "rank_deaths"
DEATHS = 200
PATIENCE = 60.0
WITHIN = 10.0
TGC = [sys.executable, "-m", "tinygrad_chat"]
SETTINGS = (
    "--width 16 --layers 1 --heads 2 --context 16 --batch-size 6 --tokenizer bytes --eval-every 100 "
    "--lr-schedule constant --warmup 0"
)
"""Constant, so that a run may be told to take more steps when it goes on."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--deaths", type=int, default=DEATHS, help=f"how many ranks are killed ({DEATHS})")
    parser.add_argument("--ranks", type=int, default=2, help="of how many (2)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments and the victims (1)")
    parser.add_argument("--results", type=turns.folder, default=turns.RESULTS, help="folder for JSON (bench/results)")


def measure(arguments: argparse.Namespace) -> None:
    chance = random.Random(arguments.seed)
    seconds, kinds, objections = [], {"before training": 0, "rank 0": 0, "another": 0}, []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "text.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 200)
        for number in range(arguments.deaths):
            turns.progress(f"{NAME}: {number + 1} of {arguments.deaths}, {len(objections)} objections")
            taken, kind, objection = _one_death(folder, arguments.ranks, chance)
            seconds.append(taken)
            kinds[kind] += 1
            objections += [f"death {number + 1}, {kind}: {objection}"] if objection else []
        steps = _step(folder) + 50
        last = _train(folder, arguments.ranks, "--resume", "--steps", steps)
        last.communicate(timeout=10 * PATIENCE)
        whole = _train(folder, arguments.ranks, "--out", folder / "whole", "--steps", steps)
        whole.communicate(timeout=20 * PATIENCE)
        same = _losses(folder / "run") == _losses(folder / "whole")
    longest = max(seconds)
    print(f"{len(seconds)} deaths: {kinds}; the slowest end took {longest:.1f} s; {len(objections)} objections")
    print(f"{steps:,} steps in {len(seconds) + 1} lives: the losses of a run that nobody killed, bit for bit: {same}")
    for objection in objections:
        print(f"  {objection}")
    measured = {
        "ranks": arguments.ranks,
        "deaths": len(seconds),
        "kinds": kinds,
        "longest_seconds": longest,
        "seconds": seconds,
        "steps": steps,
        "same_losses": same,
        "objections": objections,
    }
    command = f"python -m bench {NAME} --deaths {arguments.deaths} --ranks {arguments.ranks} --seed {arguments.seed}"
    print(f"written: {write_result(NAME, command, measured, packages=('mpi4py', 'mpich'), folder=arguments.results)}")


def _one_death(folder: Path, ranks: int, chance: random.Random) -> tuple[float, str, str]:
    """Start, kill a rank, and wait; return the seconds until all had ended, what died when, and what was wrong."""
    before = _step(folder)
    begun = (folder / "run" / "config.toml").exists()
    process = _train(folder, ranks, *(["--resume"] if begun else []), "--steps", 10**6)
    found = _ranks_of(process, ranks)
    time.sleep(chance.uniform(0, 4))
    victim = chance.choice(found)
    if not victim.is_running():
        raise turns.BenchmarkError(f"{NAME}: the ranks ended by themselves: {process.communicate()[1]}")
    victim.kill()
    began = time.monotonic()
    _, said = process.communicate(timeout=PATIENCE)
    psutil.wait_procs(found, timeout=PATIENCE)
    taken = time.monotonic() - began
    trained = _step(folder) > 0
    kind = "rank 0" if victim is found[0] else "another"
    if "then resume with" not in said and kind == "another":
        kind = "before training"
    wrong = []
    if process.returncode != 3 or said.count("\n") != 1 or not said.startswith("tgc: "):
        wrong.append(f"ended with {process.returncode} and said {said[-300:]!r}")
    if taken > WITHIN:
        wrong.append(f"took {taken:.1f} s")
    if list((folder / "run").rglob("*.partial*")):
        wrong.append("left something half written")
    if trained and _step(folder) < before:
        wrong.append(f"went back from step {before} to {_step(folder)}")
    return taken, kind, "; ".join(wrong)


def _train(folder: Path, ranks: int, *arguments: object) -> subprocess.Popen[str]:
    command = [*TGC, "train", "--ranks", str(ranks), "--quiet", "--checkpoint-every", "25", "--log-every", "1"]
    if "--resume" not in arguments:
        command += ["--data", str(folder / "text.txt"), *SETTINGS.split()]
    if "--out" not in arguments:
        command += ["--out", str(folder / "run")]
    return subprocess.Popen(
        [*command, *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def _ranks_of(process: subprocess.Popen[str], count: int) -> list[psutil.Process]:
    """Return the processes of the ranks, in order, as soon as all are there."""
    while True:
        with_parents = [each for each in psutil.Process(process.pid).children(recursive=True) if _is_tgc(each)]
        parents = {each.pid for each in with_parents}
        ranks = [each for each in with_parents if each.ppid() in parents]
        if len(ranks) == count:
            return sorted(ranks, key=lambda each: int(each.environ()["PMI_RANK"]))
        if process.poll() is not None:
            raise turns.BenchmarkError(f"{NAME}: the ranks ended by themselves: {process.communicate()[1]}")
        time.sleep(0.02)


def _is_tgc(process: psutil.Process) -> bool:
    try:
        return process.cmdline()[:3] == TGC
    except psutil.Error:
        return False


def _step(folder: Path) -> int:
    """Return the step of the newest checkpoint, 0 without one."""
    return max((step_of(path) for path in find_checkpoints(folder / "run" / "checkpoints")), default=0)


def _losses(run: Path) -> list[tuple[int, Any]]:
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [(record["step"], record.get("loss")) for record in records]
