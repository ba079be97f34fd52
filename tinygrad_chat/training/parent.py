"""The parent of a run: the trained model that it starts from, if its weights are not freshly initialised."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinygrad_chat.config.groups import DataOptions
from tinygrad_chat.errors import VocabularyError
from tinygrad_chat.files import user_path
from tinygrad_chat.formatting import count
from tinygrad_chat.runs.checkpoint import WEIGHTS, digest_of
from tinygrad_chat.runs.lookup import open_checkpoint
from tinygrad_chat.runs.state import SavedModel
from tinygrad_chat.text.corpora import open_corpus
from tinygrad_chat.text.data import count_unknown_characters, open_sources
from tinygrad_chat.text.download import Progress
from tinygrad_chat.text.token_store import MixedStore, TokenStore
from tinygrad_chat.text.tokenizers import CharacterTokenizer

SHOWN = 5  # unknown characters listed in an error


def open_parent(start_from: str, *, say: Callable[[str], None] = lambda line: None) -> SavedModel:
    """Return the model of a run or a checkpoint; `say` reports damaged checkpoints that were skipped.

    Raises CheckpointError if there is none.
    """
    return open_checkpoint(user_path(start_from), SavedModel.load, say=say)


def describe_parent(parent: SavedModel) -> dict[str, Any]:
    """Return what identifies a parent, ready for JSON: its path, its step and the SHA-256 of its weights."""
    assert parent.path is not None
    return {
        "checkpoint": str(parent.path),
        "step": parent.step,
        "weights_sha256": digest_of(parent.path, WEIGHTS),
    }


def open_data_for(
    parent: SavedModel, data: DataOptions, *, progress: Progress | None = None
) -> TokenStore | MixedStore:
    """Return a run's text encoded by the parent's tokenizer. Raises VocabularyError, naming unknown characters."""
    try:
        return open_sources(data.source, parent.tokenizer, **data.reading, split=data.split, progress=progress)
    except VocabularyError as error:
        if not isinstance(parent.tokenizer, CharacterTokenizer):
            raise VocabularyError(f"--data {data.name}: {error}") from error
        unknown = count_unknown_characters(open_corpus(data.source, **data.reading), parent.tokenizer)
        if not unknown:  # the text could be read only once
            raise VocabularyError(f"--data {data.name}: {error}") from error
        often = sorted(unknown, key=lambda character: (-unknown[character], character))
        names = ", ".join(f"{character!r} (U+{ord(character):04X})" for character in often[:SHOWN])
        raise VocabularyError(
            f"--data {data.name}: the model of {parent.path} does not know {names}{', ...' * (len(often) > SHOWN)}, "
            f"{count(len(often), 'character')}, {count(unknown.total(), 'time')} in all; replace them in the text, or "
            "train a model with --tokenizer bytes, which encodes any text"
        ) from error
