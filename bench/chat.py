"""What a model that learned to chat can do, over seeds, beside what is promised of it, and how soon it answers.

Each seed's model is trained by `tgc train --config chat`, unless --runs names some that are there. Scores are those of
`tgc eval`, on phrasings, names, numbers and words that no model has seen. Times are those of `tgc chat` from the start
of the process to the first letter of an answer, and within a conversation those to the first token of a turn, with and
without what was read before.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench import turns
from bench.record import write_result
from tinygrad_chat.inference.chat import Chat
from tinygrad_chat.inference.engine import Engine
from tinygrad_chat.inference.load import load_model, quick_kernels
from tinygrad_chat.inference.options import GenerationOptions
from tinygrad_chat.runs.folder import RunFolder
from tinygrad_chat.runs.lookup import open_checkpoint
from tinygrad_chat.runs.state import SavedModel

NAME = "chat"
BAR = {"python": 0.95, "sums": 0.98, "spelling": 0.80, "unknown": 0.90, "known": 0.97, "turns": 0.80}
"""The parts that are to be solved; a known name is solved by any answer that does not refuse it."""
LATEST = {"start_seconds": 1.0, "first_token_ms": 100.0}
"""How long it may take from the start of the process to the first letter, and from a question to the first token."""
QUESTIONS = ("What does str.split do?", "What is 347 * 28?", "How do you spell banana?", "And what does len do?")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    turns.add_arguments(parser)
    parser.add_argument("--seeds", type=int, default=3, help="train so many models, of seeds 1, 2, ... (3)")
    parser.add_argument("--config", default="chat", help="the preset that they are trained by (chat)")
    parser.add_argument("--steps", type=int, help="of each training (the preset's)")
    parser.add_argument("--problems", type=int, default=200, help="of each task (200)")
    parser.add_argument("--tasks", nargs="+", default=list(BAR), help="what they are asked (what has a bar)")
    parser.add_argument("--keep", type=Path, help="train them in this folder, and take those that are finished there")
    parser.add_argument("--runs", nargs="+", type=Path, default=[], help="measure these, and train none")


def measure(arguments: argparse.Namespace) -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for run, trained in _runs(arguments, arguments.keep or Path(folder)):
            rows.append(
                {"run": run.name, **trained, "scores": _scores(run, arguments), **_times(run, arguments.rounds)}
            )
            turns.progress(f"{run.name}: {_in_a_line(rows[-1]['scores'])}")
    _print(rows)
    sizes = f"--config {arguments.config} --seeds {len(rows)} --problems {arguments.problems}"
    command = f"{turns.command_of(NAME, arguments)} {sizes}"
    measured = {"config": arguments.config, "problems": arguments.problems, "bar": BAR, "latest": LATEST, "rows": rows}
    print(f"written: {write_result(NAME, command, measured, folder=arguments.results)}")


def _runs(arguments: argparse.Namespace, folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield each run, and what is known of its training."""
    for run in arguments.runs:
        yield run, _known_of(run)
    for seed in range(1, 1 + arguments.seeds) if not arguments.runs else ():
        run = folder / f"seed-{seed}"
        if not (run.exists() and RunFolder(run).outcome_is("finished")):
            turns.progress(f"{run.name}: training")
            settings = ["--config", arguments.config, "--seed", f"{seed}", "--out", f"{run}"]
            settings += [] if arguments.steps is None else ["--steps", f"{arguments.steps}"]
            turns.tgc("train", "--json", *(["--resume", "--out", f"{run}"] if run.exists() else settings))
        yield run, _known_of(run)


def _known_of(run: Path) -> dict[str, Any]:
    saved = open_checkpoint(run, SavedModel.load, say=turns.progress)
    return {"seed": saved.config.run.seed, "step": saved.step, "seconds": saved.progress.seconds}


def _scores(run: Path, arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    tasks = [word for task in arguments.tasks for word in ("--task", task)]
    found = turns.tgc("eval", "--json", "--problems", f"{arguments.problems}", *tasks, f"{run}")["tasks"]
    kept = ("accuracy", "error", "centred", "count", "seconds")
    return {result["task"]: {name: result[name] for name in kept} for result in found}


def _times(run: Path, rounds: int) -> dict[str, Any]:
    """Return medians: of a process's first letter, and of first tokens within a conversation."""
    first_letters = [_first_letter(run) for _ in range(rounds)]
    saved = open_checkpoint(run, SavedModel.load, say=turns.progress)
    model = load_model(saved, kernels=quick_kernels(1))
    found = {}
    for name, prefix_bytes in (("first_token_ms", 1 << 28), ("first_token_without_prefixes_ms", 0)):
        waits = [
            _first_tokens(Engine(model, saved.tokenizer, rows=1, prefix_bytes=prefix_bytes)) for _ in range(rounds)
        ]
        found[name] = [1000 * statistics.median(turn) for turn in zip(*waits, strict=True)]
    return {"start_seconds": statistics.median(first_letters), **found}


def _first_letter(run: Path) -> float:
    """Return the seconds from the start of `tgc chat` to the first letter of its answer."""
    command = [sys.executable, "-m", "tinygrad_chat", "chat", "--checkpoint", str(run), "-p", QUESTIONS[0]]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout
        letter = process.stdout.read(1)
        seconds = time.perf_counter() - began
        process.stdout.read()
    if not letter or process.returncode:
        raise turns.BenchmarkError(f"tgc chat: no answer with {run}, exit code {process.returncode}")
    return seconds


def _first_tokens(engine: Engine) -> list[float]:
    """Return the seconds to the first token of each turn of a conversation."""
    chat, waits = Chat(engine, options=GenerationOptions(temperature=0, max_new_tokens=30)), []
    for question in QUESTIONS:
        began = time.perf_counter()
        steps = chat.reply(question)
        next(steps)
        waits.append(time.perf_counter() - began)
        for _ in steps:
            pass
    return waits


def _print(rows: Sequence[dict[str, Any]]) -> None:
    """Print a line for each task and time: each run, the mean of all, and the bar."""
    print(f"{'':<14}" + "".join(f"{row['run'][-12:]:>14}" for row in rows) + f"{'mean':>10}{'bar':>10}")
    for task in rows[0]["scores"]:
        values = [row["scores"][task]["accuracy"] for row in rows]
        mean, bar = statistics.fmean(values), BAR.get(task)
        verdict = "" if bar is None else f"{bar:>10.0%}  {'reached' if mean >= bar else 'missed'}"
        print(f"{task:<14}" + "".join(f"{value:>14.1%}" for value in values) + f"{mean:>10.1%}{verdict}")
    starts = [row["start_seconds"] for row in rows]
    print(f"{'start (s)':<14}" + "".join(f"{value:>14.2f}" for value in starts) + _against(starts, "start_seconds"))
    waits = [max(row["first_token_ms"]) for row in rows]
    print(f"{'token (ms)':<14}" + "".join(f"{value:>14.1f}" for value in waits) + _against(waits, "first_token_ms"))


def _against(values: Sequence[float], name: str) -> str:
    mean, latest = statistics.fmean(values), LATEST[name]
    return f"{mean:>10.2f}{f'< {latest:g}':>10}  {'reached' if mean < latest else 'missed'}"


def _in_a_line(scores: dict[str, dict[str, float]]) -> str:
    return ", ".join(f"{task} {score['accuracy']:.1%}" for task, score in scores.items())
