"""The commands, gathered, and how each of them ends: what a mistake prints and the exit code."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from tinygrad_chat import __version__
from tinygrad_chat.cli.ablate import ablate
from tinygrad_chat.cli.compare import compare
from tinygrad_chat.cli.doctor import doctor
from tinygrad_chat.cli.graph import graph
from tinygrad_chat.cli.interchange import export, import_
from tinygrad_chat.cli.plan import plan
from tinygrad_chat.cli.profile import profile
from tinygrad_chat.cli.report import report
from tinygrad_chat.cli.runs import runs
from tinygrad_chat.cli.sample import sample
from tinygrad_chat.cli.train import train
from tinygrad_chat.errors import StorageError, TinygradChatError

INTERRUPTED = 130  # what shells report for Ctrl-C
CLOSED_PIPE = 141  # and for a program whose reader has gone

app = typer.Typer(
    name="tgc",
    help="Train small GPTs from scratch, and sample from them.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
for command in (train, plan, profile, sample, runs, report, compare, ablate, graph, import_, export, doctor):
    app.command(command.__name__.rstrip("_"))(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"tgc {__version__}")
        raise typer.Exit


@app.callback()
def _all_commands(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `tgc` and end the process with the command's exit code; a user's mistake prints one line, no traceback."""
    # Without a terminal, as a service, a process may have been started with these closed.
    sys.stdout, sys.stderr = (stream or Path(os.devnull).open("w") for stream in (sys.stdout, sys.stderr))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character shows a question mark
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run `tgc` and return its exit code."""
    try:
        code = app(arguments, prog_name="tgc", standalone_mode=False)
    except SystemExit as ended:  # whoever read us has had enough, as `| head` does: that is how typer ends then
        if isinstance(ended.__context__, BrokenPipeError):
            return CLOSED_PIPE
        raise
    except TinygradChatError as error:
        print(f"tgc: {error}", file=sys.stderr)
        return error.exit_code
    except typer.TyperException as error:
        message = error.format_message()
        if message:  # empty where no command was given: then the help has been shown
            command = getattr(getattr(error, "ctx", None), "command_path", "tgc")
            print(f"tgc: {_first_lower(message)}; see {command} --help", file=sys.stderr)
        return error.exit_code
    except MemoryError as error:
        asked = " ".join(str(error).split()).rstrip(".")
        detail = f" ({asked[:1].lower()}{asked[1:]})" if asked else ""
        print(f"tgc: not enough memory{detail}; choose a smaller --width, --context or --batch-size", file=sys.stderr)
        return StorageError.exit_code
    except OSError as error:
        print(f"tgc: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        return StorageError.exit_code
    except (KeyboardInterrupt, typer.Abort):
        print("tgc: interrupted", file=sys.stderr)
        return INTERRUPTED
    return code if isinstance(code, int) else 0


def _first_lower(message: str) -> str:
    message = " ".join(message.split()).rstrip(".?")
    return message[:1].lower() + message[1:]
