"""`tgc ablate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from tinygrad_chat.cli.flags import ConfigFile, Confirmed, flags_of
from tinygrad_chat.config.files import read_settings
from tinygrad_chat.config.record import GROUPS
from tinygrad_chat.errors import UsageError
from tinygrad_chat.option import flag_of


@flags_of(*GROUPS.values())
def ablate(
    vary: Annotated[
        str,
        typer.Option(help="settings to vary, as in norm,tied or lr=0.001|0.01", rich_help_panel="Ablation"),
    ],
    config: ConfigFile = None,
    seeds: Annotated[int, typer.Option(help="runs of each cell, with seeds 1, 2, ...", rich_help_panel="Ablation")] = 3,
    out: Annotated[
        str | None, typer.Option(help="where results go (default: below ablations/)", rich_help_panel="Ablation")
    ] = None,
    png: Annotated[
        bool, typer.Option("--png", help="also write results.png (needs the extra plots)", rich_help_panel="Ablation")
    ] = False,
    yes: Confirmed = False,
    **settings: Any,
) -> None:
    """Train a grid of settings over several seeds; started again, it goes on where it stopped.

    Writes results as JSONL, CSV, a Markdown table with means and confidence intervals, and a plot as SVG.
    """
    if seeds < 1:
        raise UsageError(f"--seeds: expected at least 1, received {seeds}")
    if "seed" in settings:
        raise UsageError("--seed: an ablation takes the seeds 1, 2, ...; say how many with --seeds")

    from tinygrad_chat.cli.ablation_display import open_ablation_display
    from tinygrad_chat.cli.interruption import exit_code, stop_on_signals
    from tinygrad_chat.cli.table import Column, open_console, print_table
    from tinygrad_chat.drawing.png import expect_matplotlib
    from tinygrad_chat.experiments.ablation import Ablation, folder_of, parse_variation, read_rows, run_ablation
    from tinygrad_chat.experiments.report import collect, table, write_plot, write_reports
    from tinygrad_chat.files import user_path
    from tinygrad_chat.machine.memory import refuse_more_than_available
    from tinygrad_chat.text.shares import without_shares
    from tinygrad_chat.training.events import Ended

    if png:
        expect_matplotlib("--png")
    ablation = Ablation(settings, parse_variation(vary), seeds, base=read_settings(config) if config else {})
    for name in settings.keys() & ablation.varied.keys():
        raise UsageError(f"{flag_of(name)}: is varied; leave it out, or give its values as in --vary {name}=A|B")
    folder = user_path(out) if out else folder_of(ablation)
    interrupted = False
    runs, done = len(ablation.runs()), len(read_rows(folder))
    with (
        open_ablation_display(sys.stdout, runs=runs, done=done) as display,
        stop_on_signals(display.line) as stopped,
    ):
        wanted = run_ablation(ablation, folder, should_stop=lambda: bool(stopped or display.error), confirmed=yes)
        for number, (run, event) in enumerate(wanted):
            if number == 0:  # with the first run built, as in training: CUDA reserves its addresses before
                refuse_more_than_available()
            display.show_run(run, event)
            interrupted = isinstance(event, Ended) and event.interrupted
    if display.error:
        raise display.error  # results stay, and the same command goes on with them
    if interrupted:
        print(f"interrupted; go on with the same command. Results so far: {folder}")
        raise typer.Exit(exit_code(stopped))
    first = ablation.config(*ablation.runs()[0])
    source, steps = Path(without_shares(first.data.source)[0]).stem, first.schedule.steps
    title = f"{first.recipe.model} ({first.compute.mode}) on {source}, {steps:,} steps"
    cells = collect(ablation, folder)
    write_reports(cells, folder, title=title)
    columns = [Column(name, values, left=name in ablation.varied) for name, values in table(cells).items()]
    print_table(open_console(sys.stdout), columns, keep=len(ablation.varied) + 1)
    write_plot(cells, folder, title=title, png=png)
    print(f"\nresults: {folder}")
