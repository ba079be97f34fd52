"""`tgc profile`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinygrad_chat.cli.flags import ConfigFile, flags_of
from tinygrad_chat.cli.streams import print_json
from tinygrad_chat.cli.table import Column, open_console, print_table
from tinygrad_chat.config.files import read_settings
from tinygrad_chat.config.record import GROUPS
from tinygrad_chat.formatting import memory_size, scaled_number

if TYPE_CHECKING:
    from tinygrad_chat.profiling.profile import Profile

STEPS = 10


@flags_of(*GROUPS.values())
def profile(
    config: ConfigFile = None,
    profile_steps: Annotated[
        int,
        typer.Option(help=f"steps to watch (default {STEPS})", min=1, show_default=False, rich_help_panel="Profile"),
    ] = STEPS,
    trace: Annotated[
        Path | None,
        typer.Option(help="write the last step as a Chrome trace, a JSON file", rich_help_panel="Profile"),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="a JSON object, alone on stdout", rich_help_panel="Profile")
    ] = False,
    **settings: Any,
) -> None:
    """Show where the time of a training step with these options goes, op by op, and what limits it.

    It takes some steps in a temporary folder.
    """
    import tempfile

    from tinygrad_chat.errors import UsageError
    from tinygrad_chat.files import user_path
    from tinygrad_chat.machine.memory import refuse_more_than_available
    from tinygrad_chat.profiling.profile import profile_run
    from tinygrad_chat.profiling.trace import write_trace
    from tinygrad_chat.training.facts import resolve_with_facts
    from tinygrad_chat.training.run import start_run

    resolved, data = resolve_with_facts(settings, read_settings(config) if config else None)
    if resolved.compute.mode == "scalar":
        raise UsageError(
            "--mode: expected tensor, received scalar: every step of it is Python; see python -m bench scalar"
        )
    with tempfile.TemporaryDirectory() as folder:
        run = start_run(resolved, Path(folder) / "run", data=data)
        refuse_more_than_available()
        taken = profile_run(run, profile_steps)
    backend = run.model.parameters().backend
    if trace is not None:
        trace = user_path(trace)
        write_trace(trace, taken.spans, backend)
    if as_json:
        print_json(taken.to_json())
        return
    from tinygrad_chat.cli.description import derived_settings

    for line in derived_settings(resolved):
        print(line)
    print_table(open_console(sys.stdout), _columns(taken))
    print()
    for line in _conclusions(taken):
        print(line)
    if trace is not None:
        print(f"trace: {trace}; open it at https://ui.perfetto.dev")


def _columns(taken: Profile) -> list[Column]:
    """Return the time and work of a step by op, the slowest first."""
    rows = taken.rows
    limits = [row.least_seconds(taken.limits) / row.seconds if row.seconds else 0.0 for row in rows]
    bounds = [row.bound(taken.limits) for row in rows]
    return [
        Column("", [row.name for row in rows], left=True),
        Column("calls", [f"{round(row.calls) or ''}" for row in rows]),
        Column("forward ms", [f"{1000 * row.forward:.3f}" for row in rows]),
        Column("backward ms", [f"{1000 * row.backward:.3f}" for row in rows]),
        Column("share", [f"{row.seconds / taken.step_seconds:.0%}" for row in rows]),
        Column(
            "of limit", [f"{limit:.0%} {bound}" if limit else "" for limit, bound in zip(limits, bounds, strict=True)]
        ),
        Column("compute", [f"{scaled_number(row.flops)}FLOP" if row.flops else "" for row in rows]),
        Column("moved", [memory_size(row.bytes) if row.bytes else "" for row in rows]),
    ]


def _conclusions(taken: Profile) -> Iterator[str]:
    """Yield how long a step takes and what limits it."""
    limits = taken.limits
    yield (
        f"a step: {1000 * taken.step_seconds:.2f} ms profiled, {1000 * taken.plain_seconds:.2f} ms otherwise "
        f"({taken.tokens / taken.plain_seconds:,.0f} tokens/s)"
    )
    if taken.on_device:
        host = "" if taken.host_seconds is None else f"the host submits it in {1000 * taken.host_seconds:.2f} ms, "
        yield f"of that, {host}the device needs {1000 * taken.device_seconds:.2f} ms"
    if taken.captured:
        yield "in training, a step is captured once and replayed (CUDA graphs); the table is of one submitted op by op"
    yield (
        f"measured limits: {scaled_number(limits.product_rate)}FLOP/s in matrix products, "
        f"{scaled_number(limits.bandwidth)}B/s of memory traffic, {1e6 * limits.call:.1f} us a call"
    )
    if any(row.seconds < row.least_seconds(limits) for row in taken.rows):
        yield (
            "above 100 % of a limit: small arrays stay in caches, which are faster than the memory that was measured, "
            "and times of a few microseconds are rough"
        )
    yield f"bottleneck: {taken.bottleneck()}"
