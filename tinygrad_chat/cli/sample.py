"""`tgc sample`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from tinygrad_chat.cli.flags import flags_of
from tinygrad_chat.inference.options import SamplingOptions


@flags_of(SamplingOptions)
def sample(
    checkpoint: Annotated[
        str | None,
        typer.Option(help="a checkpoint's or a run's folder (default: the newest run)", rich_help_panel="Model"),
    ] = None,
    backend: Annotated[
        str,
        typer.Option(
            help="where arrays live (default auto)",
            metavar="auto|numpy|cupy",
            show_default=False,
            rich_help_panel="Model",
        ),
    ] = "auto",
    dtype: Annotated[
        str,
        typer.Option(
            help="precision of the computation (default auto)",
            metavar="auto|float32|tf32|bfloat16",
            show_default=False,
            rich_help_panel="Model",
        ),
    ] = "auto",
    kernels: Annotated[
        str,
        typer.Option(
            help="fast forms of ops (default auto)",
            metavar="auto|cuda|numba|numpy|reference",
            show_default=False,
            rich_help_panel="Model",
        ),
    ] = "auto",
    threads: Annotated[
        int | None,
        typer.Option(
            help="processor threads (default: one for each core)", min=1, metavar="N", rich_help_panel="Model"
        ),
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(help="which engine (default: its own)", metavar="tensor|scalar", rich_help_panel="Model"),
    ] = None,
    **settings: Any,
) -> None:
    """Write text with a trained model, token by token as it comes."""
    options = SamplingOptions(**settings)

    from tinygrad_chat.inference.generation import sample_texts
    from tinygrad_chat.parallel import use_threads
    from tinygrad_chat.runs.folder import open_checkpoint
    from tinygrad_chat.training.run import load_model

    saved = open_checkpoint(
        Path(checkpoint).expanduser() if checkpoint else None, say=lambda line: print(f"tgc: {line}", file=sys.stderr)
    )
    use_threads(threads)
    model, tokenizer = load_model(saved, backend=backend, kernels=kernels, dtype=dtype, mode=mode)
    for number, pieces in enumerate(sample_texts(model, tokenizer, options)):
        if number:
            print(f"\n--- sample {number + 1} ---")
        for piece in pieces:
            sys.stdout.write(piece)
            sys.stdout.flush()
        print(flush=True)
