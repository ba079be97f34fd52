"""Reads and writes the tokenizer files of other programs, recognised by their contents."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

from tinygrad_chat.errors import CheckpointError, ConfigError, FormatError
from tinygrad_chat.files import is_folder, read_plain, write_atomic
from tinygrad_chat.schema import read_json
from tinygrad_chat.text.tokenizers.bpe import BPETokenizer
from tinygrad_chat.text.tokenizers.huggingface import from_huggingface, to_huggingface
from tinygrad_chat.text.tokenizers.tiktoken import from_tiktoken, to_tiktoken

TOKENIZER, SETTINGS = "tokenizer.json", "tokenizer_config.json"
LARGEST_FILE = 32 << 20  # bytes; a vocabulary of 256,000 tokens takes 17 MB


class _Named(TypedDict, total=False):
    """A token with its properties."""

    content: str


class _Settings(TypedDict, total=False):
    """The part of tokenizer_config.json that is used."""

    bos_token: str | _Named | None


def read_tokenizer(path: Path, *, pattern: str | None = None, size: int = 0) -> BPETokenizer:
    """Read a `tokenizer.json`, a folder that holds one, or tiktoken's ranks, for which `pattern` splits text.

    In a folder, a `tokenizer_config.json` may name the token that begins documents if the `tokenizer.json` does not.
    The latter is padded to at least `size` tokens. Raises CheckpointError, in one line, if there is no file, or it is
    invalid or unsupported.
    """
    in_folder = is_folder(path, follow=True)
    file = path / TOKENIZER if in_folder else path
    try:
        content = read_plain(file, most=LARGEST_FILE, follow=True)
        if content.lstrip()[:1] != b"{":
            return from_tiktoken(content, pattern=pattern or "nanochat")
        if pattern is not None:
            raise ConfigError("it already defines how text is split; leave the pattern out")
        return from_huggingface(content, bos=_beginning(path / SETTINGS) if in_folder else None, size=size)
    except ConfigError as error:
        raise CheckpointError(f"{file}: not a usable tokenizer: {error}") from error
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read: {error.strerror or error}") from error


def write_tokenizer(tokenizer: BPETokenizer, path: Path) -> None:
    """Write a tokenizer as tiktoken's ranks if the name ends in .tiktoken, otherwise as a `tokenizer.json`.

    Raises ConfigError if ranks cannot express the tokenizer, StorageError if the file cannot be written.
    """
    write_atomic(path, to_tiktoken(tokenizer) if path.suffix == ".tiktoken" else to_huggingface(tokenizer))


def _beginning(path: Path) -> str | None:
    """Return the name of the token that begins documents, from a model's settings; None if they do not say."""
    try:
        name = read_json(path, _Settings, most=LARGEST_FILE, follow=True).get("bos_token")
    except (OSError, FormatError):
        return None
    return name.get("content") if isinstance(name, dict) else name
