"""`hub:owner/name`: a model on the Hugging Face hub, whose files the hub's own library downloads and caches."""

from __future__ import annotations

import re
from pathlib import Path

from tinygrad_chat.errors import BackendError, CheckpointError
from tinygrad_chat.formatting import as_clause
from tinygrad_chat.text.hub import HUB

READ = ("*.json", "*.safetensors", "*.jinja")
"""The files of a model that are downloaded: no pickles, no code."""
_NAME = re.compile(r"hub:(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.-]+))?")


def is_on_hub(path: Path) -> bool:
    """Return whether a path names a model on the hub."""
    return str(path).startswith(HUB)


def model_folder(name: str) -> Path:
    """Return the folder of a model, downloaded unless it is in the hub's cache.

    Raises BackendError without the extra `hub`, CheckpointError for an invalid name or if the download fails.
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
        raise CheckpointError(f"{name}: cannot be downloaded from the Hugging Face hub ({reason})") from error
