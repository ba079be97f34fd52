"""`tgc profile`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinygrad_chat.cli.flags import ConfigFile, flags_of
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
    """Say where the time of a training step with these options goes, op by op, and what holds it back.

    Some steps are taken in a folder that is removed again.
    """
    import tempfile

    from tinygrad_chat.errors import UsageError
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
        taken = profile_run(run, profile_steps)
    backend = run.model.parameters().backend
    if trace is not None:
        write_trace(trace, taken.spans, backend)
    if as_json:
        print(json.dumps(taken.to_json()))
        return
    from tinygrad_chat.cli.display import what_follows

    for line in [*what_follows(resolved), *table(taken)]:
        print(line)
    if trace is not None:
        print(f"trace: {trace}; open it at https://ui.perfetto.dev")


def table(taken: Profile) -> Iterator[str]:
    """Yield a line for each op, then what a step takes and what it waits for."""
    yield f"{'':<16}{'calls':>7}{'forward':>10}{'backward':>10}{'share':>7}{'moved':>11}{'compute':>15}{'of limit':>10}"
    yield f"{'':<16}{'':>7}{'ms':>10}{'ms':>10}"
    for row in taken.rows:
        limit = row.least_seconds(taken.limits) / row.seconds if row.seconds else 0.0
        moved = memory_size(row.bytes) if row.bytes else ""
        compute = f"{scaled_number(row.flops)}FLOP" if row.flops else ""
        yield (
            f"{row.name:<16}{round(row.calls) or '':>7}{1000 * row.forward:>10.3f}{1000 * row.backward:>10.3f}"
            f"{row.seconds / taken.step_seconds:>7.0%}"
            f"{moved:>11}{compute:>15}{format(limit, '.0%') if limit else '':>10}"
        ).rstrip()
    yield ""
    limits = taken.limits
    yield (
        f"a step: {1000 * taken.step_seconds:.2f} ms watched, {1000 * taken.plain_seconds:.2f} ms otherwise "
        f"({taken.tokens / taken.plain_seconds:,.0f} tokens/s)"
        + (f"; the host works for {1000 * taken.host_seconds:.2f} ms of it" if taken.on_device else "")
    )
    yield (
        f"limits, measured: {scaled_number(limits.product_rate)}FLOP/s in products, "
        f"{scaled_number(limits.bandwidth)}B/s read and written"
    )
    yield f"bottleneck: {taken.bottleneck()}"
