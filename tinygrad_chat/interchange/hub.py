"""`hub:owner/name`: a model of the Hugging Face hub, whose files the hub's own library downloads and keeps."""

from __future__ import annotations

import re
from pathlib import Path

from tinygrad_chat.errors import BackendError, CheckpointError
from tinygrad_chat.formatting import as_clause
from tinygrad_chat.text.hub import HUB

READ = ("*.json", "*.safetensors", "*.jinja")
"""What is downloaded of a model: no pickle, and no program."""
_NAME = re.compile(r"hub:(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.-]+))?")


def is_on_hub(path: Path) -> bool:
    """Return whether a path is a name on the hub."""
    return str(path).startswith(HUB)


def model_folder(name: str) -> Path:
    """Return the folder of a model, downloaded where the hub's cache has it not yet.

    Raises BackendError without the extra `hub`, CheckpointError for a name that is none, and for whatever keeps the hub
    from giving it.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise CheckpointError(f"{name}: expected hub:owner/name, or hub:owner/name@COMMIT")
    try:
        import huggingface_hub
    except ImportError as error:
        raise BackendError(f"{name}: needs huggingface_hub; run: pip install 'tinygrad-chat[hub]'") from error
    try:
        return Path(
            huggingface_hub.snapshot_download(
                found["repository"], revision=found["revision"], allow_patterns=list(READ)
            )
        )
    except Exception as error:
        reason = as_clause(str(error)) or type(error).__name__
        raise CheckpointError(f"{name}: the Hugging Face hub does not give it ({reason})") from error
