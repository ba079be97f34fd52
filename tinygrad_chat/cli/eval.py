"""`tgc eval`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinygrad_chat.cli.flags import flags_of
from tinygrad_chat.cli.streams import print_json, say
from tinygrad_chat.cli.table import Column, open_console, print_table
from tinygrad_chat.config.groups import ComputeOptions, DataOptions
from tinygrad_chat.errors import UsageError, VocabularyError
from tinygrad_chat.option import specs_of

if TYPE_CHECKING:
    from tinygrad_chat.evaluation.text import TextEvaluation
    from tinygrad_chat.text.download import Progress

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

    from tinygrad_chat.evaluation.text import evaluate_on_text
    from tinygrad_chat.files import user_path
    from tinygrad_chat.inference.load import load_model
    from tinygrad_chat.parallel import use_threads
    from tinygrad_chat.runs.lookup import open_checkpoint
    from tinygrad_chat.runs.state import SavedModel

    use_threads(compute.pop("threads", None))
    found: list[tuple[str, TextEvaluation]] = []
    with _progress() as progress:
        for name in runs or [None]:
            saved = open_checkpoint(user_path(name) if name else None, SavedModel.load, say=say)
            model = load_model(saved, **compute)
            evaluated = evaluate_on_text(
                model, saved.tokenizer, saved.config, most_bytes=max_bytes, progress=progress, **settings
            )
            called = str(name or saved.path)
            try:
                found += [(called, each) for each in evaluated]
            except VocabularyError as error:  # which of the models
                raise VocabularyError(f"{called}: {error}") from error
    if as_json:
        print_json({"evaluations": [{"run": name, **each.to_json()} for name, each in found]})
    else:
        print_table(open_console(sys.stdout), _columns(found), keep=3)


def _columns(found: list[tuple[str, TextEvaluation]]) -> list[Column]:
    """Return what is known, in the order of importance."""
    evaluations = [each.evaluation for _, each in found]
    return [
        Column("run", [name for name, _ in found], left=True),
        Column("bits/byte", [f"{each.bits_per_byte:.4f}" for each in evaluations]),
        Column("text", [each.source for _, each in found], left=True),
        Column("bytes", [f"{each.bytes:,}" for each in evaluations]),
        Column("bytes/token", [f"{each.bytes_per_token:.2f}" for _, each in found]),
        Column("loss", [f"{each.loss:.4f}" for each in evaluations]),
        Column("perplexity", [f"{each.perplexity:,.4g}" for each in evaluations]),
        Column("tokens", [f"{each.tokens:,}" for each in evaluations]),
        Column("tokens/s", [f"{each.evaluation.tokens / each.seconds:,.0f}" for _, each in found]),
    ]


@contextmanager
def _progress() -> Iterator[Progress | None]:
    """Provide what moves a bar on a terminal."""
    from tinygrad_chat.cli.display import open_progress

    with open_progress(sys.stderr) as bar:
        if bar is None:
            yield None
            return
        task = bar.add_task("opening", total=None)
        yield lambda activity, done, total: bar.update(task, description=activity, completed=done, total=total)
