"""`tgc plan`."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from tinygrad_chat.cli.flags import flags_of
from tinygrad_chat.config.training import TrainingConfig, resolve_config
from tinygrad_chat.errors import UsageError
from tinygrad_chat.formatting import count, duration, memory_size, scaled_number
from tinygrad_chat.option import flag_of

if TYPE_CHECKING:
    from tinygrad_chat.planning.fit import Fitted
    from tinygrad_chat.planning.plan import Plan
    from tinygrad_chat.text.download import Progress

MEASURE = (sys.executable, "-P", "-m", "tinygrad_chat", "plan", "--measure")
"""Starts the process that is measured: a `tgc`, so that it reads flags and loads what `tgc train` does."""

FEW_STEPS = 3
BAR = 30  # characters that stand for all of the time


@flags_of(TrainingConfig)
def plan(
    config: Annotated[
        str | None,
        typer.Option(
            "--config",
            "--preset",
            help="settings to start from: a TOML file or a preset's name",
            rich_help_panel="Plan",
        ),
    ] = None,
    fit: Annotated[
        bool, typer.Option("--fit", help="choose --accumulate so that a step fits into memory", rich_help_panel="Plan")
    ] = False,
    memory: Annotated[
        float | None,
        typer.Option(help="GiB that --fit may use (default 80 % of what is available)", rich_help_panel="Plan"),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="a JSON object, alone on stdout", rich_help_panel="Plan")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="go on where scalar steps will take minutes", rich_help_panel="Plan")
    ] = False,
    measure: Annotated[str | None, typer.Option(hidden=True)] = None,
    **settings: Any,
) -> None:
    """Predict what `tgc train` would take with these options: memory, time, tokens and operations.

    A first two seconds of the run are measured for it, in a process of their own; nothing is left behind.
    """
    if measure is not None:
        _answer_measurement(measure)
        return
    if memory is not None and not fit:
        raise UsageError("--memory: says what --fit may use; add --fit")
    if memory is not None and not 0 < memory < float("inf"):
        raise UsageError(f"--memory: expected more than 0 GiB, received {memory:g}")
    if fit and "accumulate" in settings:
        raise UsageError("--accumulate: is what --fit chooses; leave one of them out")
    resolved = resolve_config(settings, config)

    from tinygrad_chat.planning.fit import fit as fit_run
    from tinygrad_chat.planning.plan import make_plan

    fitted = None
    with _progress() as (say, progressed):
        if fit:
            most = memory and memory * 2**30
            fitted = fit_run(resolved, most, command=MEASURE, confirmed=yes, progress=progressed, say=say)
            resolved, planned = fitted.config, fitted.plan
        else:
            say("measuring the first steps")
            planned = make_plan(resolved, command=MEASURE, confirmed=yes, progress=progressed)
    wanted = _command(config, {**settings, **({"accumulate": resolved.accumulate} if fitted else {})})
    if as_json:
        chosen = {"memory_budget": int(fitted.budget), "measured_parts": fitted.measured} if fitted else {}
        print(json.dumps({**planned.to_json(), **chosen, "command": wanted}))
        return
    from tinygrad_chat.cli.display import what_follows

    for line in [
        *what_follows(resolved),
        *_table(resolved, planned, sys.stdout),
        *(_choice(fitted, wanted) if fitted else []),
    ]:
        print(line)


def _answer_measurement(request: str) -> None:
    """Be the process that is measured, with all that `tgc train` would have loaded."""
    import tinygrad_chat.cli.display
    import tinygrad_chat.cli.interruption
    import tinygrad_chat.tracking.trackers  # noqa: F401
    from tinygrad_chat.planning.first_steps import main

    main(request)


@contextmanager
def _progress() -> Iterator[tuple[Callable[[str], None], Progress]]:
    """Provide what shows, on a terminal, what is being done and how far a download is."""
    from tinygrad_chat.cli.display import open_progress

    with open_progress(sys.stderr) as bar:
        task = None if bar is None else bar.add_task("reading", total=None)

        def say(line: str) -> None:
            if bar is not None and task is not None:
                bar.reset(task, total=None, description=line)

        def progressed(activity: str, done: int, total: int) -> None:
            if bar is not None and task is not None:
                bar.update(task, description=f"{activity} {total / 1e6:.1f} MB", completed=done, total=total)

        yield say, progressed


def _table(config: TrainingConfig, plan: Plan, stream: TextIO) -> Iterator[str]:
    """Yield the plan, a line for each quantity, then where the time goes."""
    parts = f" in {config.accumulate} parts of {plan.micro_batch}" if config.accumulate > 1 else ""
    rows = {
        "parameters": f"{plan.parameters:,}",
        "steps": f"{plan.steps:,} of {count(config.batch_size, 'window')}{parts}, context {config.context}",
        "tokens": f"{plan.tokens:,}",
        "compute": f"{scaled_number(plan.flops)}FLOP, {scaled_number(plan.flops_per_step)}FLOP a step",
        "memory": f"{memory_size(plan.memory)} at its peak"
        + ("" if plan.device_memory is None else f", {memory_size(plan.device_memory)} of the GPU's"),
        "speed": f"{plan.tokens_per_second:,.0f} tokens/s, {scaled_number(plan.flops_per_second)}FLOP/s",
        "time": duration(plan.seconds.total),
    }
    for name, value in rows.items():
        yield f"{name:<13}{value}"
    yield ""
    seconds = plan.seconds
    spent = {
        "training": (seconds.training, ""),
        "evaluations": (seconds.evaluations, f"{plan.evaluations:,} with a sample each"),
        "checkpoints": (seconds.checkpoints, f"{plan.checkpoints:,}"),
        "start-up": (seconds.startup, "and the end"),
        "between steps": (seconds.other, "the log"),
    }
    block, rest = ("█", "░") if _can_show("█░", stream) else ("#", ".")
    for name, (part, note) in spent.items():
        share = part / seconds.total
        filled = round(BAR * share)
        bar = block * filled + rest * (BAR - filled)
        yield f"{name:<14}{bar} {share:>4.0%}  {duration(part):<14} {note}".rstrip()
    yield ""
    measured, environment = plan.measurement, plan.measurement.environment
    blas = "".join(f", {blas['library']} with {count(blas['threads'], 'thread')}" for blas in environment["blas"])
    yield (
        f"measured: {count(measured.steps, 'step')} of {duration(measured.step_seconds)} on {environment['backend']} "
        f"({environment['device']}), NumPy {environment['numpy']}{blas}"
    )
    if measured.steps < FEW_STEPS:
        yield "so few steps say little of the time: take it as rough"


def _choice(fitted: Fitted, command: str) -> Iterator[str]:
    """Yield what was chosen, why, and the command that trains so."""
    yield ""
    measured = " and ".join(f"{count(windows, 'window')} {memory_size(memory)}" for windows, memory in fitted.measured)
    yield f"measured in one part: {measured}; {memory_size(fitted.budget)} may be used"
    how = "as it is" if fitted.config.accumulate == 1 else f"with --accumulate {fitted.config.accumulate}"
    yield (
        f"fits {how}: parts of {count(fitted.plan.micro_batch, 'window')}, "
        f"{memory_size(fitted.plan.device_memory or fitted.plan.memory)}"
    )
    yield command


def _command(config: str | None, settings: Mapping[str, Any]) -> str:
    """Return the `tgc train` that these options mean."""
    words = ["tgc", "train", *(["--config", config] if config else [])]
    for name in (field.name for field in dataclasses.fields(TrainingConfig) if field.name in settings):
        flag, value = flag_of(name), settings[name]
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        else:
            words += [flag, str(value)]
    return shlex.join(words)


def _can_show(text: str, stream: TextIO) -> bool:
    try:
        text.encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
