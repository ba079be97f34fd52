"""`tgc import` and `tgc export`: models from and for other programs."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from tinygrad_chat.cli.streams import say
from tinygrad_chat.errors import UsageError

FORMATS = ("nanochat",)
Format = Annotated[str, typer.Argument(help="the other program", metavar="|".join(FORMATS), show_default=False)]


def import_(
    program: Format,
    file: Annotated[Path, typer.Argument(help="its weights, a safetensors file", show_default=False)],
    meta: Annotated[
        Path | None, typer.Option(help="its JSON file with the model_config, if the weights have none")
    ] = None,
    tokenizer_of: Annotated[
        str | None, typer.Option(help="a run whose tokenizer the model knows (default: tokens are written as numbers)")
    ] = None,
    out: Annotated[str | None, typer.Option(help="the run's folder (default: a new one below runs/)")] = None,
) -> None:
    """Make a run from the weights of another program's model: sample from it, or fine-tune it.

    From karpathy/nanochat: see docs/nanochat.md.
    """
    _expect_known(program)

    from tinygrad_chat.files import user_path
    from tinygrad_chat.formatting import quoted
    from tinygrad_chat.interchange.nanochat_files import import_nanochat
    from tinygrad_chat.runs.folder import RUNS, RunFolder
    from tinygrad_chat.runs.lookup import open_checkpoint
    from tinygrad_chat.runs.state import SavedModel

    tokenizer = None
    if tokenizer_of is not None:
        tokenizer = open_checkpoint(user_path(tokenizer_of), SavedModel.load, say=say).tokenizer
    name = f"{program}-{file.stem}-{datetime.now():%Y%m%d-%H%M%S}"
    folder = RunFolder(user_path(out) if out else RUNS / name)
    meta = meta and user_path(meta)
    print(import_nanochat(user_path(file), folder, meta=meta, tokenizer=tokenizer))
    print(f"sample from it with: tgc sample --checkpoint {quoted(folder.path)}")
    print(f"fine-tune it with: tgc train --from {quoted(folder.path)} --data TEXT")


def export(
    program: Format,
    out: Annotated[Path, typer.Argument(help="the safetensors file to write", show_default=False)],
    checkpoint: Annotated[
        str | None, typer.Option(help="a checkpoint's or a run's folder (default: the newest run)")
    ] = None,
) -> None:
    """Write a trained model's weights as another program's. To karpathy/nanochat: see docs/nanochat.md."""
    _expect_known(program)

    from tinygrad_chat.files import is_there, user_path
    from tinygrad_chat.interchange.nanochat_files import export_nanochat
    from tinygrad_chat.runs.lookup import open_checkpoint
    from tinygrad_chat.runs.state import SavedModel

    out = user_path(out)
    if is_there(out):
        raise UsageError(f"{out}: is there already; choose another name")
    saved = open_checkpoint(user_path(checkpoint) if checkpoint else None, SavedModel.load, say=say)
    print(f"{out}: {export_nanochat(saved, out)} tensors of step {saved.step}")


def _expect_known(program: str) -> None:
    if program not in FORMATS:
        raise UsageError(f"expected {' or '.join(FORMATS)}, received {program!r}")
