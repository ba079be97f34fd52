"""`tgc plan`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinygrad_chat.cli.flags import ConfigFile, Confirmed, flags_of
from tinygrad_chat.cli.streams import print_json
from tinygrad_chat.cli.table import Column, can_show, open_console, print_facts, print_table
from tinygrad_chat.config.files import read_settings
from tinygrad_chat.config.record import GROUPS, SPECS, TrainingConfig
from tinygrad_chat.errors import UsageError
from tinygrad_chat.formatting import as_command, count, duration, memory_size, scaled_number
from tinygrad_chat.option import flag_of

if TYPE_CHECKING:
    from tinygrad_chat.planning.fit import Fitted
    from tinygrad_chat.planning.plan import Plan
    from tinygrad_chat.text.download import Progress

MEASURE = (sys.executable, "-P", "-m", "tinygrad_chat", "plan", "--measure")
"""Starts the process to be measured: a `tgc`, so that it parses flags and loads the modules of `tgc train`."""

FEW_STEPS = 3
BAR = 24  # characters of a full bar: with its note, a row has at most 80


@flags_of(*GROUPS.values())
def plan(
    config: ConfigFile = None,
    fit: Annotated[
        bool,
        typer.Option(
            "--fit", help="choose --grad-accumulation so that a step fits into memory", rich_help_panel="Plan"
        ),
    ] = False,
    memory: Annotated[
        float | None,
        typer.Option(help="GiB that --fit may use (default 80 % of what is available)", rich_help_panel="Plan"),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="a JSON object, alone on stdout", rich_help_panel="Plan")
    ] = False,
    yes: Confirmed = False,
    ranks: Annotated[
        int, typer.Option(min=1, help="number of processes on this machine, by MPI", rich_help_panel="Plan")
    ] = 1,
    measure: Annotated[str | None, typer.Option(hidden=True)] = None,
    **settings: Any,
) -> None:
    """Predict what `tgc train` needs with these options: memory, time, tokens and operations.

    The first two seconds of the run are measured, in a process of its own; nothing is left behind.
    """
    if measure is not None:
        _answer_measurement(measure)
        return
    if memory is not None and not fit:
        raise UsageError("--memory: limits what --fit may use; add --fit")
    if memory is not None and not 0 < memory < float("inf"):
        raise UsageError(f"--memory: expected more than 0 GiB, received {memory:g}")
    from tinygrad_chat.backend.host_threads import count_cores

    if ranks > count_cores():
        raise UsageError(
            f"--ranks: expected at most the {count_cores()} cores of this machine, on which a plan is measured, "
            f"received {ranks}; docs/distributed.md says what to expect of more"
        )
    if fit and ranks > 1:
        raise UsageError("--fit: chooses for one process; leave out --ranks")
    if fit and "grad_accumulation" in settings:
        raise UsageError("--grad-accumulation: is chosen by --fit; leave one of the two out")

    from tinygrad_chat.planning.fit import fit as fit_run
    from tinygrad_chat.planning.plan import make_plan
    from tinygrad_chat.training.facts import resolve_with_facts

    fitted = None
    with _progress() as (say, progressed):
        resolved, _ = resolve_with_facts(settings, read_settings(config) if config else None, progress=progressed)
        if fit:
            most = memory and memory * 2**30
            fitted = fit_run(resolved, most, command=MEASURE, confirmed=yes, progress=progressed, say=say)
            resolved, planned = fitted.config, fitted.plan
        else:
            say("measuring the first steps")
            planned = make_plan(resolved, command=MEASURE, confirmed=yes, ranks=ranks, progress=progressed)
    if fitted:
        settings["grad_accumulation"] = resolved.compute.grad_accumulation
    if "data" in settings:
        settings["data"] = resolved.data.source  # where standard input was saved, or a name fit for a command
    wanted = _command(config, settings) + (f" --ranks {ranks}" if ranks > 1 else "")
    if as_json:
        chosen = {"memory_budget": int(fitted.budget), "measured_parts": fitted.measured} if fitted else {}
        print_json({**planned.to_json(), **chosen, "command": wanted})
        return
    from tinygrad_chat.cli.description import derived_settings

    for line in derived_settings(resolved):
        print(line)
    console = open_console(sys.stdout)
    print_facts(console, _quantities(resolved, planned).items())
    print()
    print_table(console, _times(planned, "█░" if can_show(sys.stdout, "█░") else "#."))
    print()
    for line in [*_measured(planned), *(_choice(fitted, wanted) if fitted else [])]:
        print(line)


def _answer_measurement(request: str) -> None:
    """Act as the process to be measured, with all modules loaded that `tgc train` loads."""
    import tinygrad_chat.cli.display
    import tinygrad_chat.cli.interruption
    import tinygrad_chat.tracking.sending  # noqa: F401
    from tinygrad_chat.planning.first_steps import main

    main(request)


@contextmanager
def _progress() -> Iterator[tuple[Callable[[str], None], Progress]]:
    """Provide two callbacks that show the current activity and a download's progress on a terminal."""
    from tinygrad_chat.cli.display import of_how_much, open_progress

    with open_progress(sys.stderr) as bar:
        task = None if bar is None else bar.add_task("reading", total=None)

        def say(line: str) -> None:
            if bar is not None and task is not None:
                bar.reset(task, total=None, description=line)

        def progressed(activity: str, done: int, total: int) -> None:
            if bar is not None and task is not None:
                bar.update(task, description=of_how_much(activity, total), completed=done, total=total)

        yield say, progressed


def _quantities(config: TrainingConfig, plan: Plan) -> dict[str, str]:
    windows, accumulated = count(config.data.batch_size, "window"), plan.grad_accumulation
    batch = windows + (f" in {accumulated} micro-batches of {plan.micro_batch}" if accumulated > 1 else "")
    return {
        "parameters": f"{plan.parameters:,}",
        "steps": f"{plan.steps:,} of {batch}, context {config.model.context}",
        "tokens": f"{plan.tokens:,}",
        "compute": f"{scaled_number(plan.flops)}FLOP, {scaled_number(plan.flops_per_step)}FLOP a step",
        "memory": f"{memory_size(plan.memory)} at its peak"
        + (f", in each of {plan.measurement.ranks} ranks" if plan.measurement.ranks > 1 else "")
        + ("" if plan.device_memory is None else f", {memory_size(plan.device_memory)} of the GPU's"),
        "speed": f"{plan.tokens_per_second:,.0f} tokens/s, {scaled_number(plan.flops_per_second)}FLOP/s",
        "time": duration(plan.seconds.total),
    }


def _times(plan: Plan, bar: str) -> list[Column]:
    """Return where the time goes; `bar` holds the characters for the filled and the empty part of a bar."""
    seconds = plan.seconds
    spent = [
        ("training", seconds.training, ""),
        ("evaluations", seconds.evaluations, f"{plan.evaluations:,} with a sample each"),
        ("checkpoints", seconds.checkpoints, f"{plan.checkpoints:,}"),
        ("start-up", seconds.startup, "and the end"),
        ("between steps", seconds.other, "the log"),
    ]
    shares = [part / seconds.total for _, part, _ in spent]
    lengths = [round(BAR * share) for share in shares]
    return [
        Column("", [name for name, _, _ in spent], left=True),
        Column("", [f"{share:.0%}" for share in shares]),
        Column("", [duration(part) for _, part, _ in spent]),
        Column("", [bar[0] * length + bar[1] * (BAR - length) for length in lengths], left=True),
        Column("", [note for _, _, note in spent], left=True),
    ]


def _measured(plan: Plan) -> Iterator[str]:
    """Yield the measurements that the plan is based on."""
    measured, environment = plan.measurement, plan.measurement.environment
    blas = "".join(f", {blas['library']} with {count(blas['threads'], 'thread')}" for blas in environment["blas"])
    yield (
        f"measured: {count(measured.steps, 'step')} of {duration(measured.step_seconds)} on {environment['backend']} "
        f"({environment['device']}), NumPy {environment['numpy']}{blas}"
    )
    if measured.steps < FEW_STEPS:
        yield "with so few steps, the time is a rough estimate"


def _choice(fitted: Fitted, command: str) -> Iterator[str]:
    """Yield what --fit chose, why, and the command that trains with it."""
    yield ""
    measured = " and ".join(f"{count(windows, 'window')} {memory_size(memory)}" for windows, memory in fitted.measured)
    yield f"measured in one micro-batch: {measured}; {memory_size(fitted.budget)} may be used"
    accumulated = fitted.config.compute.grad_accumulation
    how = "as it is" if accumulated == 1 else f"with --grad-accumulation {accumulated}"
    yield (
        f"fits {how}: micro-batches of {count(fitted.plan.micro_batch, 'window')}, "
        f"{memory_size(fitted.plan.device_memory or fitted.plan.memory)}"
    )
    yield command


def _command(config: str | None, settings: Mapping[str, Any]) -> str:
    """Return the `tgc train` command with these options."""
    words = ["tgc", "train", *(["--config", config] if config else [])]
    for name in (name for name in SPECS if name in settings):
        flag, value = flag_of(name), settings[name]
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        else:
            words += [word for each in (value if isinstance(value, tuple) else (value,)) for word in (flag, str(each))]
    return as_command(words)
