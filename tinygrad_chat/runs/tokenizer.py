"""Open a tokenizer by name: from a file in a common format, or of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tinygrad_chat.errors import CheckpointError, UsageError
from tinygrad_chat.files import is_folder, is_there, user_path
from tinygrad_chat.runs.lookup import open_checkpoint
from tinygrad_chat.runs.state import SavedModel
from tinygrad_chat.text.tokenizers import ByteTokenizer, Tokenizer
from tinygrad_chat.text.tokenizers.files import TOKENIZER, read_tokenizer


def tokenizer_named(
    name: str | None,
    *,
    option: str = "tokenizer",
    others: Sequence[str] = (),
    say: Callable[[str], None] = lambda line: None,
) -> Tokenizer:
    """Return the byte tokenizer by its name, or open a user's path with `open_tokenizer`.

    Raises UsageError, naming the `option` and the `others` it accepts, if there is none.
    """
    if name == ByteTokenizer.kind:
        return ByteTokenizer()
    try:
        return open_tokenizer(None if name is None else user_path(name), say=say)
    except CheckpointError as error:
        names = ", ".join([*others, ByteTokenizer.kind])
        raise UsageError(
            f"{option}: expected {names}, or the path of a tokenizer.json, of tiktoken's ranks or of a run; {error}"
        ) from error


def open_tokenizer(path: Path | None, *, say: Callable[[str], None] = lambda line: None) -> Tokenizer:
    """Return the tokenizer of a `tokenizer.json`, of a folder with one, of tiktoken's ranks, or of a run or checkpoint.

    The default is that of the newest run. `say` reports damaged checkpoints that were skipped. Raises CheckpointError
    if there is none, or none that can be used.
    """
    in_folder = path is not None and is_folder(path, follow=True)
    if path is not None and is_there(path / TOKENIZER if in_folder else path, follow=True):
        return read_tokenizer(path)
    return open_checkpoint(path, SavedModel.load, say=say).tokenizer
