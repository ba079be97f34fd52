"""Garbage in every file, in weights and on the command line: what does a command do with it?

Each try damages a copy of two small runs, of weights and of a text, and runs commands there. A command may refuse, in
one line and with an exit code of the table. It must not end in a traceback or a warning, hang, print a line of more
than 400 characters or characters that a terminal obeys, take 200 MiB more than when all is well, or write outside.
Where a run cannot go on, nothing of it may be lost: with its files put back it ends as if nothing had happened.

runs        one to three files of a run are damaged; runs, report, compare, sample, train --resume and --from look at it
weights     a safetensors file lies, or its header is drawn from nothing; import, and sample from what comes of it
lines       command lines with values of every kind
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.hostile.child import LONGEST, MAX_ADDRESSES
from bench.hostile.damage import remove
from bench.hostile.judge import CODES, LONGEST_LINE, MAX_MEMORY, MAX_OUTPUT
from bench.hostile.material import make_material
from bench.hostile.parts import PARTS, SHARES
from bench.hostile.trial import Result, Trial, Workshop, prepare, usual_memory
from bench.record import write_result

NAME = "hostile"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tries", type=int, default=1500, help="damaged runs; of the others there are two thirds")
    parser.add_argument("--seed", type=int, default=1, help="decides the damage")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--only", help="one try, as in runs/12: leave its folder, before the commands, and say more")
    parser.add_argument("--keep", type=Path, help="where folders of failing tries are left (default: a temporary one)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="tries at the same time")


def measure(arguments: argparse.Namespace) -> None:
    if not hasattr(os, "fork"):
        raise SystemExit("this system cannot copy a process")
    if arguments.only:
        part, _, number = arguments.only.partition("/")
        trials = [Trial(part, int(number), arguments.seed)]
    else:
        counts = {part: round(arguments.tries * SHARES[part]) for part in arguments.parts}
        trials = [Trial(part, number, arguments.seed) for part, count in counts.items() for number in range(count)]
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="hostile-") as scratch:
        material = make_material(Path(scratch) / "whole")
        workshop = Workshop(material, Path(scratch), usual_memory(material, Path(scratch)))
        results = list(_with_progress(_tried(trials, workshop, arguments.workers), len(trials)))
        failed = [result for result in results if result.objections]
        keep = arguments.keep or Path(tempfile.mkdtemp(prefix="hostile-kept-"))
        for result in results if arguments.only else failed:
            _leave(result, workshop, keep)
    if arguments.only:
        _show(results[0], keep)
    else:
        _conclude(results, arguments, seconds=time.perf_counter() - began)
    if failed:
        raise SystemExit(f"{len(failed)} of {len(trials)} tries failed; they are left in {keep}")


def _tried(trials: Sequence[Trial], workshop: Workshop, workers: int) -> Iterator[Result]:
    """Yield how tries ended, as they end. The workers are copies of this process; each copies itself for a command."""
    if workers == 1 or len(trials) == 1:
        yield from map(workshop.attempt, trials)
        return
    gc.freeze()  # so that collecting garbage there copies no memory of ours
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        yield from pool.imap_unordered(workshop.attempt, trials)


def _with_progress(results: Iterable[Result], count: int) -> Iterator[Result]:
    failed = 0
    for number, result in enumerate(results, start=1):
        failed += bool(result.objections)
        for kind, place, _ in result.objections[:1]:
            print(f"{result.trial.part}/{result.trial.number}: {kind}: {place[:200]}", flush=True)
        if number % 100 == 0 or number == count:
            print(f"{number} of {count} tries, {failed} failed", flush=True)
        yield result


def _leave(result: Result, workshop: Workshop, keep: Path) -> None:
    """Make the folder of a try again, as it was before its commands, with the commands beside."""
    folder = keep / f"{result.trial.part}-{result.trial.number}"
    if folder.exists():
        remove(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    prepare(result.trial, workshop.material, folder)
    notes = {"again": result.trial.command, "damage": result.damage, "commands": result.commands}
    notes |= {"objections": result.objections}
    (keep / f"{folder.name}.json").write_text(json.dumps(notes, indent=1) + "\n")


def _show(result: Result, keep: Path) -> None:
    print(f"left in {keep}")
    for done in result.damage:
        print(f"damage: {done}")
    for command in result.commands:
        print(f"\n{command['code']}  {command['seconds']:.1f} s  {command['memory'] >> 20} MiB  tgc {command['line']}")
        for name in ("out", "err"):
            print("".join(f"  {name}: {line[:400]!r}\n" for line in command[name].splitlines()[:60]), end="")
    for kind, place, number in result.objections:
        print(f"OBJECTION to command {number}: {kind}: {place}")


def _conclude(results: Sequence[Result], arguments: argparse.Namespace, *, seconds: float) -> None:
    """Print the counts and write them."""
    parts: dict[str, Any] = {}
    for part in arguments.parts:
        of_part = [result for result in results if result.trial.part == part]
        codes: dict[str, Counter[str]] = {}
        for command in (command for result in of_part for command in result.commands):
            codes.setdefault(command["name"], Counter())[str(command["code"])] += 1
        parts[part] = {
            "tries": len(of_part),
            "survived": sum(not result.objections for result in of_part),
            "commands": sum(len(result.commands) for result in of_part),
            "exit_codes": {name: dict(sorted(codes[name].items())) for name in sorted(codes) if part != "lines"}
            or dict(sorted(sum(codes.values(), Counter[str]()).items())),
            "largest_memory_mib": max(command["memory"] for result in of_part for command in result.commands) >> 20,
            "longest_seconds": round(max(command["seconds"] for result in of_part for command in result.commands), 1),
        }
        print(f"{part}: {json.dumps(parts[part])}")
    found: dict[tuple[str, str], list[str]] = {}
    for result in results:
        for kind, place, number in result.objections:
            name = result.commands[number]["name"] if number < len(result.commands) else ""
            where = re.sub(r"\d[\d,]*", "N", place)[:100]
            found.setdefault((kind, f"{name}: {where}"), []).append(f"{result.trial.part}/{result.trial.number}")
    kinds = [
        {"kind": kind, "where": place, "tries": len(tries), "examples": tries[:5]}
        for (kind, place), tries in sorted(found.items(), key=lambda item: -len(item[1]))
    ]
    for each in kinds:
        print(f"{each['tries']:>5}  {each['kind']}: {each['where']}  ({', '.join(each['examples'][:3])})")
    bounds = {"seconds": LONGEST, "line": LONGEST_LINE, "output": MAX_OUTPUT, "memory": MAX_MEMORY}
    measured = {
        "seed": arguments.seed,
        "bounds": {**bounds, "addresses": MAX_ADDRESSES, "exit_codes": sorted(CODES)},
        "seconds": round(seconds, 1),
        "parts": parts,
        "objections": kinds,
    }
    command = f"python -m bench {NAME} --tries {arguments.tries} --seed {arguments.seed}"
    print(f"written: {write_result(NAME, command, measured)}")
