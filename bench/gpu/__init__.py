"""Ours on one GPU, beside PyTorch and nanochat: in stages, the most telling first, each on disk before the next.

Needs of a bare checkout what CUDA images have: NumPy, CuPy and, for peers, PyTorch. What a stage finds is a line of
RESULTS/gpu/STAGE.jsonl at once; after each stage there are gpu.json and gpu.md of all so far. A stage that fails, hangs
or runs out of memory is recorded, and the next begins. Engines take turns, and their losses must agree first.

With --estimate nothing runs: a training step's launches, bytes and operations are counted, and its time at given roofs.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from bench import turns
from bench.gpu.estimate import COUNTED, KNOWN, Roofs, tables_of
from bench.gpu.report import draw, gather, page_of
from bench.gpu.stages import STAGES, Settings, Stage, run_stages
from bench.peers import nanochat
from bench.record import write_result

NAME = "gpu"
ROUNDS = 5
TRIAL_ROUNDS = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    turns.add_arguments(parser)
    parser.set_defaults(rounds=ROUNDS)
    names = ", ".join(stage.name for stage in STAGES)
    parser.add_argument("--stages", type=_stages, default=STAGES, metavar="A,B", help=f"some of: {names}")
    parser.add_argument(
        "--minutes",
        type=_minutes,
        default=float("inf"),
        help="no stage begins that might not end within so many minutes",
    )
    parser.add_argument("--resume", action="store_true", help="keep the stages that are done, run the others")
    parser.add_argument("--trial", action="store_true", help="tiny models on the CPU: does the measurement work?")
    parser.add_argument("--text", metavar="FILE", help="tiny Shakespeare's text, for the stage shakespeare")
    nanochat.add_argument(parser)
    on_paper = parser.add_argument_group("a step on paper, without a GPU")
    on_paper.add_argument("--estimate", action="store_true", help="count its launches, bytes and operations instead")
    on_paper.add_argument("--configurations", nargs="+", default=COUNTED, choices=KNOWN, metavar="NAME")
    for roof in dataclasses.fields(Roofs):
        flag, what = f"--{roof.name.replace('_', '-')}", f"{roof.metadata['help']} ({roof.default:g})"
        on_paper.add_argument(flag, type=float, default=roof.default, metavar="ROOF", help=what)


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number of minutes above 0, received {text!r}")
    return minutes


def _stages(text: str) -> Sequence[Stage]:
    """Return the stages of these names, in the order in which they run."""
    known, names = {stage.name for stage in STAGES}, set(text.split(","))
    if not names <= known:
        raise argparse.ArgumentTypeError(
            f"expected some of {','.join(stage.name for stage in STAGES)}, received {','.join(sorted(names - known))}"
        )
    return [stage for stage in STAGES if stage.name in names]


def measure(arguments: argparse.Namespace) -> None:
    if arguments.estimate:
        roofs = Roofs(*(getattr(arguments, roof.name) for roof in dataclasses.fields(Roofs)))
        print("\n\n".join(tables_of(name, roofs) for name in arguments.configurations))
        return
    if not arguments.trial:
        from tinygrad_chat.backend import get_backend

        get_backend("cupy")  # or one line with the remedy, before anything begins
    with _results(arguments) as results:
        folder = results / NAME
        folder.mkdir(exist_ok=True)
        rounds = min(arguments.rounds, TRIAL_ROUNDS) if arguments.trial else arguments.rounds
        settings = Settings(str(folder), arguments.trial, rounds, arguments.nanochat, arguments.text)

        def write() -> None:
            stages, packages = gather(folder), ("torch",) if find_spec("torch") else ()
            write_result(NAME, _command(arguments), {"stages": stages}, packages=packages, folder=results)
            (results / f"{NAME}.md").write_text(page_of(stages, trial=arguments.trial))

        write()
        run_stages(arguments.stages, settings, minutes=arguments.minutes, resume=arguments.resume, after_each=write)
        print(page_of(gather(folder), trial=arguments.trial))
        draw(gather(folder), results, NAME, trial=arguments.trial)
        print(f"written: {results / NAME}.json, {results / NAME}.md and {folder}")


def _command(arguments: argparse.Namespace) -> str:
    """Return the command that makes the results again."""
    some = "" if arguments.stages is STAGES else f" --stages {','.join(stage.name for stage in arguments.stages)}"
    return f"python -m bench {NAME} --rounds {arguments.rounds}{some}" + " --trial" * arguments.trial


@contextmanager
def _results(arguments: argparse.Namespace) -> Iterator[Path]:
    """Provide the folder for results; a trial's are thrown away unless a folder for them is named."""
    if not arguments.trial or arguments.results != turns.RESULTS:
        yield arguments.results
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
    print("a trial: nothing is kept without --results FOLDER")
