"""Open any model: of a run or checkpoint of ours, a Hugging Face folder, a GGUF file, a package, or the hub."""

from __future__ import annotations

from pathlib import Path

from tinygrad_chat.errors import CheckpointError
from tinygrad_chat.files import explained, is_folder, is_run, is_there
from tinygrad_chat.interchange.chats import Say
from tinygrad_chat.interchange.hub import is_on_hub, model_folder
from tinygrad_chat.interchange.huggingface_files import CONFIG, is_pickle, no_pickle
from tinygrad_chat.interchange.packaged import packaged_model
from tinygrad_chat.runs.checkpoint import STATE_FILE
from tinygrad_chat.runs.finding import RUNS
from tinygrad_chat.runs.lookup import open_checkpoint
from tinygrad_chat.runs.state import SavedModel


def open_model(path: Path | None, *, say: Say) -> SavedModel:
    """Return the model at `path`, which is another program's model or whatever `open_checkpoint` takes.

    `say` reports damaged checkpoints that were skipped, and whatever of a model cannot be used. Raises CheckpointError
    if there is no usable model.
    """
    return (path and open_foreign(path, say=say)) or open_checkpoint(path, SavedModel.load, say=say)


def open_foreign(path: Path, *, say: Say) -> SavedModel | None:
    """Return another program's model at `path`, or the packaged model of that name; None if there is none. Raises
    CheckpointError if it cannot be used."""
    if is_on_hub(path):
        path = model_folder(str(path))
    with explained(path, "read"):
        if is_folder(path, follow=True):
            other = is_there(path / CONFIG, follow=True) and not is_run(path)
            if not other:
                return None
            from tinygrad_chat.interchange.huggingface import open_huggingface

            return open_huggingface(path, say=say)
        if not is_there(path, follow=True):
            packaged = None if is_there(RUNS / path, follow=True) else packaged_model(path)
            return packaged and open_foreign(packaged, say=say)
        if is_pickle(path):
            raise no_pickle(path)
        from tinygrad_chat.interchange.gguf import is_gguf

        if is_gguf(path):
            from tinygrad_chat.interchange.gguf_model import open_gguf

            return open_gguf(path, say=say)
    if path.suffix == ".safetensors" and not is_there(path.with_name(STATE_FILE), follow=True):
        raise CheckpointError(f"{path}: is a file of weights; name its folder, which holds a {CONFIG}")
    return None
