"""Lists and removes the cached token stores. Those in use stay."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tinygrad_chat.errors import FormatError
from tinygrad_chat.files import is_folder, list_folder, remove_folder_atomic
from tinygrad_chat.text.token_cache import remove_abandoned, stores_folder
from tinygrad_chat.text.token_store import METADATA, in_use, read_metadata


@dataclass(frozen=True)
class StoredTokens:
    """A token store, according to its metadata.

    `source` is its corpus's name when it was tokenized, `tokenizer` the kind of tokenizer, `size` its size on disk in
    bytes, and `last_use` a time in seconds since 1970. A store of another version, or a damaged one, has no `source`.
    """

    folder: Path
    size: int
    last_use: float
    source: str = ""
    tokenizer: str = ""
    vocabulary: int = 0
    documents: int = 0
    tokens: int = 0

    @property
    def name(self) -> str:
        """A short name that tells it from the others."""
        return self.folder.name[:8]


def stored_tokens() -> list[StoredTokens]:
    """Return the cached stores, the most recently used first. Raises OSError if they cannot be read."""
    every = list_folder(stores_folder(), follow=True)
    found = [_described(path) for path in every if path.name[0] != "." and is_folder(path)]
    return sorted(found, key=lambda each: each.last_use, reverse=True)


def remove_stores(stores: Iterable[StoredTokens]) -> list[StoredTokens]:
    """Remove the stores that are not in use, and abandoned partial ones; return those in use.

    Raises StorageError if something cannot be removed.
    """
    kept = []
    for store in stores:
        if in_use(store.folder):
            kept.append(store)
        else:
            remove_folder_atomic(store.folder)
    remove_abandoned()
    return kept


def _described(folder: Path) -> StoredTokens:
    size = sum(file.stat().st_size for file in list_folder(folder))
    try:
        last_use = (folder / METADATA).stat().st_mtime
        said = read_metadata(folder)
        return StoredTokens(
            folder,
            size,
            last_use,
            source=said.source,
            tokenizer=str(said.tokenizer.get("kind")),
            vocabulary=said.vocabulary,
            documents=said.contents.documents,
            tokens=said.tokens,
        )
    except (OSError, FormatError):
        return StoredTokens(folder, size, folder.stat().st_mtime)
