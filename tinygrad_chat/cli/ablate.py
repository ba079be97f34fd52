"""`tgc ablate`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinygrad_chat.cli.flags import ConfigFile, Confirmed, flags_of
from tinygrad_chat.config.files import read_settings
from tinygrad_chat.config.record import GROUPS
from tinygrad_chat.errors import TinygradChatError, UsageError
from tinygrad_chat.formatting import count
from tinygrad_chat.option import flag_of

if TYPE_CHECKING:
    from tinygrad_chat.cli.ablation_display import AblationLines
    from tinygrad_chat.experiments.ablation import Ablation
    from tinygrad_chat.experiments.jobs import News
    from tinygrad_chat.experiments.planned import PlannedRun


@flags_of(*GROUPS.values())
def ablate(
    vary: Annotated[
        str,
        typer.Option(help="settings to vary, as in norm,tied or lr=0.001|0.01", rich_help_panel="Ablation"),
    ],
    config: ConfigFile = None,
    seeds: Annotated[int, typer.Option(help="runs of each cell, with seeds 1, 2, ...", rich_help_panel="Ablation")] = 3,
    jobs: Annotated[
        int | None,
        typer.Option(help="runs at a time, each in a process of its own", rich_help_panel="Ablation"),
    ] = None,
    submit: Annotated[
        str | None,
        typer.Option(metavar="slurm|local", help="train as jobs of a cluster", rich_help_panel="Ablation"),
    ] = None,
    slurm_option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="for sbatch, as in time=2:00:00", rich_help_panel="Ablation"),
    ] = None,
    detach: Annotated[
        bool,
        typer.Option("--detach", help="leave the jobs alone; the same command collects", rich_help_panel="Ablation"),
    ] = False,
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
    for name, number in {"--seeds": seeds, "--jobs": jobs}.items():
        if number is not None and number < 1:
            raise UsageError(f"{name}: expected at least 1, received {number}")
    if "seed" in settings:
        raise UsageError("--seed: an ablation uses the seeds 1, 2, ...; choose how many with --seeds")
    for name, given in {"--slurm-option": slurm_option, "--detach": detach}.items():
        if given and submit is None:
            raise UsageError(f"{name}: has no effect without --submit")

    from tinygrad_chat.cli.ablation_display import open_ablation_display
    from tinygrad_chat.cli.interruption import exit_code, stop_on_signals
    from tinygrad_chat.drawing.png import expect_matplotlib
    from tinygrad_chat.experiments.ablation import Ablation, folder_of, parse_variation
    from tinygrad_chat.experiments.jobs import run_jobs
    from tinygrad_chat.experiments.results import read_rows
    from tinygrad_chat.experiments.submission import expect_cluster, parse_cluster_options, run_submitted
    from tinygrad_chat.files import user_path

    if png:
        expect_matplotlib("--png")
    cluster_options = {}
    if submit is not None:
        expect_cluster(submit)
        cluster_options = parse_cluster_options(slurm_option or [], submit)
    ablation = Ablation(settings, parse_variation(vary), seeds, base=read_settings(config) if config else {})
    for name in settings.keys() & ablation.varied.keys():
        raise UsageError(f"{flag_of(name)}: is varied; leave it out, or give its values as in --vary {name}=A|B")
    folder = user_path(out) if out else folder_of(ablation)
    runs, done = len(ablation.runs()), len(read_rows(folder))
    at_once = submit is not None or jobs is not None
    with open_ablation_display(sys.stdout, runs=runs, done=done, at_once=at_once) as display:
        said = display.line if submit is None else lambda _: None  # submitted jobs go on: nothing is stopped
        with stop_on_signals(said) as stopped:

            def should_stop() -> bool:
                return bool(stopped or display.error)

            shared = {"should_stop": should_stop, "confirmed": yes}
            told = {**shared, "say": display.line, "progress": display.progressed}
            if submit is not None:
                cluster = {"cluster": submit, "options": cluster_options, "most_at_once": jobs, "detach": detach}
                ended = _follow(display, run_submitted(ablation, folder, **cluster, **told))
            elif jobs is not None:
                ended = _follow(display, run_jobs(ablation, folder, jobs, **told))
            else:
                ended = _one_after_another(display, ablation, folder, shared)
    if display.error:
        raise display.error  # results are kept, and the same command continues from them
    if ended.left:
        what = "interrupted; continue with the same command"
        if submit is not None:
            what = f"{count(ended.left, 'run')} queued or running; the same command collects the results"
        print(f"{what}. Results so far: {folder}")
    if ended.left and stopped:
        raise typer.Exit(exit_code(stopped))
    _show_results(ablation, folder, ended.failed, png=png)
    if ended.failed:
        raise TinygradChatError(
            f"{len(ended.failed)} of {count(runs, 'run')} failed, {ended.failed[0].name} first; output.txt in each "
            "folder says why; the same command tries them again"
        )


@dataclass
class Ended:
    """How the runs of a command ended: how many are `left` for the next one, and which have `failed`."""

    left: int = 0
    failed: list[PlannedRun] = field(default_factory=list)


def _one_after_another(display: AblationLines, ablation: Ablation, folder: Path, how: Any) -> Ended:
    from tinygrad_chat.experiments.running import run_ablation
    from tinygrad_chat.machine.memory import refuse_more_than_available
    from tinygrad_chat.training.events import Ended as RunEnded

    ended = Ended()
    for number, (run, event) in enumerate(run_ablation(ablation, folder, **how)):
        if number == 0:  # once the first run is built, as in training: CUDA has reserved its addresses by then
            refuse_more_than_available()
        display.show_run(run, event)
        ended.left = isinstance(event, RunEnded) and event.interrupted
    return ended


def _follow(display: AblationLines, happened: Iterable[News]) -> Ended:
    from tinygrad_chat.experiments.jobs import Failed, Stopped

    ended = Ended()
    for news in happened:
        display.show_news(news)
        ended.left += isinstance(news, Stopped)
        if isinstance(news, Failed):
            ended.failed.append(news.run)
    return ended


def _show_results(ablation: Ablation, folder: Path, failed: Sequence[PlannedRun], *, png: bool) -> None:
    """Write and print the results of the finished runs."""
    from tinygrad_chat.cli.table import Column, open_console, print_table
    from tinygrad_chat.experiments.report import collect, table, write_plot, write_reports
    from tinygrad_chat.text.shares import without_shares

    first = ablation.config(*ablation.runs()[0])
    source, steps = Path(without_shares(first.data.source)[0]).stem, first.schedule.steps
    title = f"{first.recipe.model} ({first.compute.mode}) on {source}, {steps:,} steps"
    cells = collect(ablation, folder, failed)
    if not cells:
        return
    write_reports(cells, folder, title=title)
    columns = [Column(name, values, left=name in ablation.varied) for name, values in table(cells).items()]
    print_table(open_console(sys.stdout), columns, keep=len(ablation.varied) + 1)
    write_plot(cells, folder, title=title, png=png)
    print(f"\nresults: {folder}")
