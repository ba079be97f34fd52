"""`tgc train`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinygrad_chat.cli.flags import ConfigFile, Confirmed, flags_of
from tinygrad_chat.cli.ranks import RankLogs, RanksOption, RankTimeout, several_ranks
from tinygrad_chat.cli.streams import print_json
from tinygrad_chat.config.files import read_settings
from tinygrad_chat.config.record import GROUPS
from tinygrad_chat.errors import StorageError, UsageError

if TYPE_CHECKING:
    from tinygrad_chat.cli.display import Lines
    from tinygrad_chat.training.evaluation import Evaluation
    from tinygrad_chat.training.events import Event
    from tinygrad_chat.training.run import Run


@flags_of(*GROUPS.values())
def train(
    call: typer.Context,
    config: ConfigFile = None,
    out: Annotated[
        str | None, typer.Option(help="the run's folder (default: a new one below runs/)", rich_help_panel="Run")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="continue the run at --out, or the newest run", rich_help_panel="Run")
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="print only a JSON object on stdout, at the end", rich_help_panel="Run", hidden=True
        ),
    ] = False,
    yes: Confirmed = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="show only how the run ends", rich_help_panel="Run")
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="show every line of the log and whole samples", rich_help_panel="Run"),
    ] = False,
    ranks: RanksOption = None,
    rank_timeout: RankTimeout = 300,
    rank_logs: RankLogs = None,
    **settings: Any,
) -> None:
    """Train a model. Without any option: a small GPT on Python's own manual, in a minute or two."""
    if out == "":
        raise UsageError("--out: expected a folder, received none; leave it out for a new one below runs/")
    if quiet and verbose:
        raise UsageError("--quiet: says less, --verbose more; leave one of the two out")
    if resume and config:
        raise UsageError("--config: a resumed run keeps its configuration; change individual settings with their flags")

    from tinygrad_chat.cli.display import open_display
    from tinygrad_chat.files import user_path
    from tinygrad_chat.runs.lookup import newest_run
    from tinygrad_chat.tracking.opening import expect_tracker
    from tinygrad_chat.training.distributed import follow as take_part
    from tinygrad_chat.training.facts import resolve_with_facts
    from tinygrad_chat.training.run import resume_run, start_run

    with several_ranks(call, ranks, rank_timeout, rank_logs, take_part) as leading:
        with open_display(sys.stderr if as_json else sys.stdout, quiet=quiet, verbose=verbose) as display:
            communicator = leading and leading.communicator
            path = user_path(out) if out else None
            if resume:
                expect_tracker(settings.get("track"))
                run = resume_run(
                    path or newest_run(begun=True).path,
                    settings,
                    progress=display.progressed,
                    confirmed=yes,
                    communicator=communicator,
                    say=display.line,
                )
                if run.finished:  # `resume_run` has said so
                    if as_json:
                        print_json(_summary(run, None, interrupted=False))
                    return
            else:
                base = read_settings(config) if config else None
                resolved, data = resolve_with_facts(settings, base, progress=display.progressed, say=display.line)
                expect_tracker(resolved.run.track)
                run = start_run(
                    resolved, path, data=data, progress=display.progressed, confirmed=yes, communicator=communicator
                )
            tracked = settings.get("track") is not None
            ended = follow(run, display, display.show, asked_for=tracked, stopped_by=leading and leading.stopped_by)
        if as_json:
            print_json(_summary(run, ended.evaluation, interrupted=ended.interrupted))
        ended.settle(run, display)


@dataclass
class Followed:
    """How a run's training ended: its last evaluation, and the signals that stopped it, if any."""

    evaluation: Evaluation | None
    interrupted: bool
    signals: list[int]

    def settle(self, run: Run, display: Lines) -> None:
        """End the command accordingly if training was stopped from outside. Raises StorageError, typer.Exit."""
        from tinygrad_chat.cli.interruption import exit_code

        if display.error and not self.signals and not isinstance(display.error, BrokenPipeError):
            reason = f"{display.error.filename}: {display.error.strerror}"
            raise StorageError(f"{reason}; everything is saved, resume with: {run.folder.resume_command}")
        if self.interrupted:
            raise typer.Exit(exit_code(self.signals))


def follow(
    run: Run,
    display: Lines,
    show: Callable[[Event], None],
    *,
    asked_for: bool = False,
    stopped_by: Callable[[], int | None] | None = None,
) -> Followed:
    """Train, `show` each event and send it to the run's tracker; the first signal stops it between two steps.

    `asked_for` says whether the user asked for a tracker this time, as in `tracking`; `stopped_by` returns the signal
    that another rank has received, if any.
    """
    from tinygrad_chat.cli.interruption import stop_on_signals
    from tinygrad_chat.machine.memory import refuse_more_than_available
    from tinygrad_chat.tracking.sending import tracking
    from tinygrad_chat.training.events import Ended, Evaluated
    from tinygrad_chat.training.loop import train as train_run

    display.begin(run)
    refuse_more_than_available()
    with tracking(run, display.line, asked_for=asked_for) as send, stop_on_signals(display.line) as stopped:
        followed = Followed(None, False, stopped)

        def should_stop() -> bool:
            elsewhere = stopped_by and stopped_by()
            if elsewhere and not stopped:
                stopped.append(elsewhere)
            return bool(stopped or display.error)

        for event in train_run(run, should_stop=should_stop):
            show(event)
            send(event)
            if isinstance(event, Evaluated):
                followed.evaluation = event.evaluation
            elif isinstance(event, Ended):
                followed.interrupted = event.interrupted
    return followed


def _summary(run: Run, evaluation: Evaluation | None, *, interrupted: bool) -> dict[str, Any]:
    from tinygrad_chat.runs.checkpoint import checkpoint_path

    return {
        "run": str(run.folder.path),
        "checkpoint": str(checkpoint_path(run.folder.checkpoints, run.progress.step)),
        "left_out": [{"path": str(each.path), "reason": each.reason} for each in run.dataset.left_out],
        "step": run.progress.step,
        "interrupted": interrupted,
        "parameters": run.model.parameters().size,
        "seconds": round(run.progress.seconds, 3),
        "val_loss": evaluation and evaluation.loss,
        "val_bpb": evaluation and evaluation.bits_per_byte,
        "best_val_loss": run.progress.best_loss,
        "best_step": run.progress.best_step,
    }
