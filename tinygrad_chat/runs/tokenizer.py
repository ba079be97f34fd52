"""The tokenizer that a name stands for: in a file that other programs read, too, or of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tinygrad_chat.files import is_folder, is_there
from tinygrad_chat.runs.lookup import open_checkpoint
from tinygrad_chat.runs.state import SavedModel
from tinygrad_chat.text.tokenizers import Tokenizer
from tinygrad_chat.text.tokenizers.files import TOKENIZER, read_tokenizer


def open_tokenizer(path: Path | None, *, say: Callable[[str], None] = lambda line: None) -> Tokenizer:
    """Return the tokenizer of a `tokenizer.json`, of a folder with one, of tiktoken's ranks, or of a run or checkpoint.

    By default it is that of the newest run. `say` is told of damaged checkpoints that were passed over. Raises
    CheckpointError where there is none, or none that can be used.
    """
    in_folder = path is not None and is_folder(path, follow=True)
    if path is not None and is_there(path / TOKENIZER if in_folder else path, follow=True):
        return read_tokenizer(path)
    return open_checkpoint(path, SavedModel.load, say=say).tokenizer
