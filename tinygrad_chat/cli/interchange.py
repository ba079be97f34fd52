"""`tgc import` and `tgc export`: models from and for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinygrad_chat.cli.streams import say
from tinygrad_chat.errors import UsageError

PROGRAMS = ("huggingface", "gguf", "nanochat")
TYPES = ("F32", "F16", "BF16", "Q8_0")


def import_(
    source: Annotated[
        str,
        typer.Argument(
            metavar="PATH|NAME",
            help="a Hugging Face folder, a GGUF file, nanochat's weights as safetensors, or hub:OWNER/NAME",
            show_default=False,
        ),
    ],
    meta: Annotated[
        Path | None, typer.Option(help="nanochat's JSON file with the model_config, if its weights have none")
    ] = None,
    tokenizer_of: Annotated[
        str | None,
        typer.Option(help="a run with the tokenizer of nanochat's model (default: tokens are written as numbers)"),
    ] = None,
    out: Annotated[str | None, typer.Option(help="the run's folder (default: a new one below runs/)")] = None,
) -> None:
    """Make a run from another program's model: chat with it, sample from it, or fine-tune it.

    See docs/interchange.md and, for karpathy/nanochat, docs/nanochat.md.
    """
    from tinygrad_chat.files import user_path
    from tinygrad_chat.formatting import quoted
    from tinygrad_chat.runs.folder import RunFolder, new_run_path

    path = user_path(source)
    folder = RunFolder(user_path(out) if out else new_run_path("imported", path))
    if path.suffix == ".safetensors":
        print(_import_nanochat(path, folder, meta, tokenizer_of))
    else:
        _expect_none("--meta", meta)
        _expect_none("--tokenizer-of", tokenizer_of)
        print(_import(path, folder))
    print(f"sample from it with: tgc sample --checkpoint {quoted(folder.path)}")
    print(f"fine-tune it with: tgc train --from {quoted(folder.path)} --data TEXT")


def _import(path: Path, folder: object) -> Path:
    from tinygrad_chat.interchange.importing import import_model
    from tinygrad_chat.interchange.opening import open_foreign
    from tinygrad_chat.runs.folder import RunFolder

    assert isinstance(folder, RunFolder)
    opened = open_foreign(path, say=say)
    if opened is None:
        raise UsageError(
            f"{path}: expected a Hugging Face folder with a config.json, a GGUF file or nanochat's safetensors file"
        )
    return import_model(opened, folder)


def _import_nanochat(path: Path, folder: object, meta: Path | None, tokenizer_of: str | None) -> Path:
    from tinygrad_chat.files import user_path
    from tinygrad_chat.interchange.nanochat_files import import_nanochat
    from tinygrad_chat.runs.folder import RunFolder
    from tinygrad_chat.runs.lookup import open_checkpoint
    from tinygrad_chat.runs.state import SavedModel

    assert isinstance(folder, RunFolder)
    tokenizer = None
    if tokenizer_of is not None:
        tokenizer = open_checkpoint(user_path(tokenizer_of), SavedModel.load, say=say).tokenizer
    return import_nanochat(path, folder, meta=meta and user_path(meta), tokenizer=tokenizer)


def _expect_none(flag: str, value: object) -> None:
    if value is not None:
        raise UsageError(f"{flag}: works only with nanochat's weights, a safetensors file")


def export(
    program: Annotated[str, typer.Argument(help="the other program", metavar="|".join(PROGRAMS), show_default=False)],
    run: Annotated[
        str, typer.Argument(help="a run or a checkpoint, or another model that tgc opens", show_default=False)
    ],
    out: Annotated[Path, typer.Argument(help="the folder to write (gguf, nanochat: the file)", show_default=False)],
    weights: Annotated[str, typer.Option(help="how numbers are stored: " + ", ".join(TYPES), metavar="TYPE")] = "F32",
) -> None:
    """Write a trained model for another program: for transformers and vLLM, for llama.cpp, or for karpathy/nanochat.

    See docs/interchange.md, docs/nanochat.md.
    """
    if program not in PROGRAMS:
        raise UsageError(f"expected {', '.join(PROGRAMS[:-1])} or {PROGRAMS[-1]}, received {program!r}")
    if weights not in TYPES:
        raise UsageError(f"--weights: expected one of {', '.join(TYPES)}, received {weights!r:.40}")

    from tinygrad_chat.files import is_there, user_path
    from tinygrad_chat.interchange.opening import open_model

    out = user_path(out)
    if is_there(out):
        raise UsageError(f"{out}: already exists; choose another name")
    saved = open_model(user_path(run), say=say)
    if program == "nanochat":
        from tinygrad_chat.interchange.nanochat_files import export_nanochat

        _expect_none_beside(program, weights, ("F32",))
        count = export_nanochat(saved, out)
    elif program == "gguf":
        from tinygrad_chat.interchange.gguf_export import export_gguf

        count = export_gguf(saved, out, weights)
    else:
        from tinygrad_chat.interchange.huggingface_export import export_huggingface

        _expect_none_beside(program, weights, ("F32", "F16", "BF16"))
        count = export_huggingface(saved, out, weights)
    print(f"{out}: {count} tensors of step {saved.step}")


def _expect_none_beside(program: str, weights: str, known: tuple[str, ...]) -> None:
    if weights not in known:
        raise UsageError(f"--weights: {program} takes {' or '.join(known)}, received {weights}")
