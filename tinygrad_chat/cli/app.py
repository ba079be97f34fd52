"""The commands, by name, and how they end: what an error prints, and the exit code."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from tinygrad_chat import __version__
from tinygrad_chat.cli.help import Command, Group
from tinygrad_chat.cli.streams import as_is
from tinygrad_chat.errors import MemoryShortageError, StorageError, TinygradChatError
from tinygrad_chat.formatting import as_clause, one_line

CLOSED_PIPE = 141  # what shells report when a program's reader has gone: 128 + SIGPIPE

COMMANDS = {
    "chat": ("chat:app", "talk to a model"),
    "serve": ("serve:serve", "let programs and people ask a model: an API and a page"),
    "train": ("train:train", "train a model, or go on with a run"),
    "data": ("data:app", "list, show or remove the texts that were tokenized"),
    "plan": ("plan:plan", "predict the memory and time of a run"),
    "profile": ("profile:profile", "show where the time of a training step goes"),
    "sample": ("sample:sample", "write text with a trained model"),
    "eval": ("eval:eval_", "measure trained models on a text"),
    "tokenizer": ("tokenizer:app", "train, use, look at or compare tokenizers"),
    "runs": ("runs:runs", "list runs: how they ended, how fast, how good"),
    "report": ("report:report", "write a run's report.html and report.md again"),
    "compare": ("compare:compare", "compare the losses of runs"),
    "ablate": ("ablate:ablate", "train a grid of settings over several seeds"),
    "graph": ("graph:graph", "draw a formula's or a model's graph with gradients"),
    "inspect": ("inspect:inspect", "show what a model is, and which programs can open it"),
    "import": ("interchange:import_", "make a run from another program's weights"),
    "export": ("interchange:export", "write a model's weights for another program"),
    "doctor": ("doctor:doctor", "show what this machine has, and what is missing"),
}
"""Where each command is in cli/, and its purpose, which `tgc --help` shows without importing the command."""


class Commands(Group):
    """The commands, each imported only when it is called."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {name: TyperCommand(name, short_help=purpose) for name, (_, purpose) in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Import and return the command that is called."""
        name, found, rest = super().resolve_command(ctx, args)
        return name, found and _load(str(name)), rest


def _load(name: str) -> Any:
    module, _, function = COMMANDS[name][0].partition(":")
    command = getattr(importlib.import_module(f"tinygrad_chat.cli.{module}"), function)
    if isinstance(command, typer.Typer):  # several commands under one name
        return typer.main.get_command(command)
    loaded = typer.Typer(add_completion=False, rich_markup_mode=None)
    loaded.command(name, cls=Command)(command)
    return typer.main.get_command(loaded)


app = typer.Typer(
    cls=Commands,
    help="Train small GPTs from scratch, and sample from them.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "color": False},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich takes longer to import than everything else
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"tgc {__version__}")
        raise typer.Exit


@app.callback()
def _all_commands(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def run(arguments: Sequence[str] | None = None) -> int:
    """Run `tgc` and return its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        code = app(given or ["--help"], prog_name="tgc", standalone_mode=False, obj=given)
        sys.stdout.flush()  # a full disk or a closed pipe shows up here at the latest
    except SystemExit as ended:  # typer exits this way when the reader closes the pipe, as `| head` does
        if isinstance(ended.__context__, BrokenPipeError):
            return CLOSED_PIPE
        raise
    except BrokenPipeError:
        return CLOSED_PIPE
    except TinygradChatError as error:
        _say_error(str(error))
        return error.exit_code
    except typer.TyperException as error:
        command = getattr(getattr(error, "ctx", None), "command_path", "tgc")
        _say_error(f"{as_clause(error.format_message())}; see {command} --help")
        return error.exit_code
    except MemoryError as error:
        asked = as_clause(str(error))
        detail = f" ({asked})" if asked else ""
        _say_error(f"not enough memory{detail}; choose a smaller --width, --context or --batch-size")
        return MemoryShortageError.exit_code
    except OSError as error:
        _say_error(f"{error.filename or 'a file'}: {error.strerror or error}")
        return StorageError.exit_code
    return code if isinstance(code, int) else 0


def _say_error(message: str) -> None:
    colored = sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    start, end = ("\x1b[1;31m", "\x1b[0m") if colored else ("", "")
    who, what = "tgc:", one_line(f"tgc: {message}").removeprefix("tgc:")
    with contextlib.suppress(OSError):  # standard error is gone too: only the exit code is left
        print(f"{start}{who}{end}{what}", file=as_is(sys.stderr), flush=True)
