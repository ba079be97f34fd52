"""`tgc eval`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinygrad_chat.cli.flags import flags_of
from tinygrad_chat.cli.streams import print_json, say
from tinygrad_chat.cli.table import Column, open_console, print_table
from tinygrad_chat.config.groups import ComputeOptions, DataOptions
from tinygrad_chat.errors import DataError, UsageError
from tinygrad_chat.formatting import decimal_number, short_number
from tinygrad_chat.option import specs_of

if TYPE_CHECKING:
    from tinygrad_chat.evaluation.text import TextEvaluation

OWN_TEXT = "what each run holds out of its own text"
READING = ("data", "text_field", "encoding")


@flags_of(
    ComputeOptions,
    DataOptions,
    short=False,
    only=(*specs_of(ComputeOptions), *READING),
    defaults={"mode": "its own", "data": OWN_TEXT},
)
def eval_(
    runs: Annotated[
        list[str] | None,
        typer.Argument(help="runs or checkpoints (default: the newest run)", metavar="[RUN ...]", show_default=False),
    ] = None,
    max_bytes: Annotated[int | None, typer.Option(help="read at most so much of each text", min=1)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="a JSON object, alone on stdout")] = False,
    **settings: Any,
) -> None:
    """Measure how good trained models are on a text: bits per byte, which compare any tokenizers.

    Without --data each is measured on all of the text that its own run holds out, of which training may evaluate a part
    (--eval-tokens). To compare several, name one text for all.
    """
    compute = {name: settings.pop(name) for name in specs_of(ComputeOptions) if name in settings}
    ComputeOptions(**compute)  # says what cannot be
    if not settings.keys() >= {"data"} and settings:
        raise UsageError(f"--{next(iter(settings)).replace('_', '-')}: plays no part without --data")

    from tinygrad_chat.cli.display import open_amount
    from tinygrad_chat.evaluation.text import evaluate_on_text
    from tinygrad_chat.files import user_path
    from tinygrad_chat.inference.load import load_model
    from tinygrad_chat.parallel import use_threads
    from tinygrad_chat.runs.consent import expect_named
    from tinygrad_chat.runs.lookup import open_checkpoint
    from tinygrad_chat.runs.state import SavedModel
    from tinygrad_chat.text.corpora import settle_source

    if "data" in settings:
        settings["data"] = settle_source(settings["data"])  # standard input can be read once, for all runs
    use_threads(compute.pop("threads", None))
    found: list[tuple[str, TextEvaluation]] = []
    with open_amount() as progress:
        for name in runs or [None]:
            saved = open_checkpoint(user_path(name) if name else None, SavedModel.load, say=say)
            if "data" not in settings and saved.folder is not None:
                expect_named(saved.folder, saved.config.data.source)
            model = load_model(saved, **compute)
            evaluated = evaluate_on_text(
                model, saved.tokenizer, saved.config, most_bytes=max_bytes, progress=progress, **settings
            )
            try:
                found += [(str(name or saved.path), each) for each in evaluated]
            except DataError as error:
                remedy = "" if "data" in settings else "; or name another text with --data"
                raise type(error)(f"{name or saved.path}: {error}{remedy}") from error
    for note in dict.fromkeys(note for _, each in found for note in each.notes):
        say(note)
    if as_json:
        print_json({"evaluations": [{"run": name, **each.to_json()} for name, each in found]})
    else:
        print_table(open_console(sys.stdout), _columns(found), keep=3)


def _columns(found: list[tuple[str, TextEvaluation]]) -> list[Column]:
    """Return what is known, in the order of importance."""
    evaluations = [each.evaluation for _, each in found]
    return [
        Column("run", [name for name, _ in found], left=True),
        Column("bits/byte", [decimal_number(each.bits_per_byte) for each in evaluations]),
        Column("text", [each.source for _, each in found], left=True),
        Column("bytes", [f"{each.bytes:,}" for each in evaluations]),
        Column("bytes/token", [f"{each.bytes_per_token:.2f}" for _, each in found]),
        Column("loss", [decimal_number(each.loss) for each in evaluations]),
        Column("perplexity", [short_number(each.perplexity) for each in evaluations]),
        Column("tokens", [f"{each.tokens:,}" for each in evaluations]),
        Column("tokens/s", [f"{each.evaluation.tokens / each.seconds:,.0f}" for _, each in found]),
    ]
