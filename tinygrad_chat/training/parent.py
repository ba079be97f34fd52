"""The trained model that a run begins with, where its weights are not drawn: its parent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinygrad_chat.config.groups import DataOptions
from tinygrad_chat.errors import VocabularyError
from tinygrad_chat.files import user_path
from tinygrad_chat.runs.checkpoint import WEIGHTS, digest_of
from tinygrad_chat.runs.lookup import open_checkpoint
from tinygrad_chat.runs.state import SavedModel
from tinygrad_chat.text.corpora import open_corpus
from tinygrad_chat.text.data import count_unknown_characters, open_data
from tinygrad_chat.text.download import Progress
from tinygrad_chat.text.token_store import TokenStore
from tinygrad_chat.text.tokenizers import CharacterTokenizer

SHOWN = 5  # unknown characters that are named


def open_parent(start_from: str, *, say: Callable[[str], None] = lambda line: None) -> SavedModel:
    """Return the model of a run or a checkpoint; `say` is told of damaged checkpoints that were passed over.

    Raises CheckpointError where there is none.
    """
    return open_checkpoint(user_path(start_from), SavedModel.load, say=say)


def describe_parent(parent: SavedModel) -> dict[str, Any]:
    """Return what tells a parent from every other one, ready for JSON: where it was, its step, its weights' SHA-256."""
    assert parent.path is not None
    return {
        "checkpoint": str(parent.path),
        "step": parent.step,
        "weights_sha256": digest_of(parent.path, WEIGHTS),
    }


def open_data_for(parent: SavedModel, data: DataOptions, *, progress: Progress | None = None) -> TokenStore:
    """Return a run's text as the parent's tokens. Raises VocabularyError, naming characters that have none."""
    try:
        return open_data(data.source, parent.tokenizer, **data.reading, progress=progress)
    except VocabularyError as error:
        if not isinstance(parent.tokenizer, CharacterTokenizer):
            raise VocabularyError(f"--data {data.name}: {error}") from error
        unknown = count_unknown_characters(open_corpus(data.source, **data.reading), parent.tokenizer)
        if not unknown:  # a text that could be read only once
            raise VocabularyError(f"--data {data.name}: {error}") from error
        often = sorted(unknown, key=lambda character: (-unknown[character], character))
        names = ", ".join(f"{character!r} (U+{ord(character):04X})" for character in often[:SHOWN])
        raise VocabularyError(
            f"--data {data.name}: the model of {parent.path} does not know {names}{', ...' * (len(often) > SHOWN)}, "
            f"{len(often)} of its characters, {unknown.total():,} times in all; replace them in the text, or "
            "train a model with --tokenizer bytes, which knows every text"
        ) from error
