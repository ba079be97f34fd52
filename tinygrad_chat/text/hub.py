"""`--data hub:owner/name`: a data set on the Hugging Face hub, downloaded and cached by the hub's own library.

    hub:owner/name                     its files of the first kind in KINDS that it has
    hub:owner/name/train/*.parquet     the files that match a pattern, or that are in a folder
    hub:owner/name@COMMIT              either of these at a commit or a branch

A run records the commit, so that it is resumed with the same files. A commit never changes: its list of files is
cached, and from then on neither the hub nor the network is needed.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinygrad_chat.errors import DataError, FormatError, StorageError
from tinygrad_chat.files import cache_folder, write_atomic
from tinygrad_chat.formatting import as_clause, memory_size
from tinygrad_chat.schema import Count, read_json
from tinygrad_chat.text.formats.compression import needed

HUB = "hub:"
KINDS = (("*.parquet",), ("*.jsonl", "*.jsonl.gz", "*.jsonl.zst"), ("*.txt", "*.txt.gz", "*.txt.zst"))
MAX_BYTES = 20 << 30  # of files that were not chosen by a pattern
LONGEST_LIST = 64 << 20  # bytes
_NAME = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.-]+))?(?:/(?P<pattern>.+))?")
_COMMIT = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True)
class HubName:
    """A name on the hub: a repository, optionally at a `revision`, and optionally a `pattern` for its files."""

    repository: str
    revision: str | None
    pattern: str | None

    def __str__(self) -> str:
        revision = "" if self.revision is None else f"@{self.revision}"
        return f"{HUB}{self.repository}{revision}" + ("" if self.pattern is None else f"/{self.pattern}")


def is_on_hub(data: str) -> bool:
    """Return whether a `--data` names a data set on the hub."""
    return data.startswith(HUB)


def pin_revision(data: str) -> str:
    """Return the same name with the commit that it refers to now. Raises as `hub_files` does."""
    name = _parsed(data)
    return str(HubName(name.repository, _list_files(name)[0], name.pattern))


def hub_files(data: str) -> list[Path]:
    """Return the files that `data` names, in order, downloading those that the hub's cache does not have yet.

    Raises BackendError without the extra `hub`, DataError for a malformed name, for no matching files or more than
    MAX_BYTES of them, and if the hub cannot provide them.
    """
    name = _parsed(data)
    commit, sizes = _list_files(name)
    chosen = sorted(_chosen(list(sizes), name.pattern))
    if not chosen:
        received = ", ".join(sorted(sizes)[:4]) + (", ..." if len(sizes) > 4 else "") or "none"
        raise DataError(f"--data {data}: expected files such as *.parquet or *.jsonl, received {received}")
    size = sum(sizes[file] for file in chosen)
    if name.pattern is None and size > MAX_BYTES:
        raise DataError(
            f"--data {data}: has {len(chosen):,} files of {memory_size(size)}; choose some with a pattern, as in "
            f"{data}/{chosen[0]}"
        )
    hub = needed("huggingface_hub", data, extra="hub")
    with _explained(data):
        return [
            Path(hub.hf_hub_download(name.repository, file, repo_type="dataset", revision=commit)) for file in chosen
        ]


def _parsed(data: str) -> HubName:
    found = _NAME.fullmatch(data.removeprefix(HUB))
    if found is None:
        raise DataError(f"--data {data}: expected hub:owner/name, or hub:owner/name/*.parquet for some of its files")
    return HubName(**found.groupdict())


def _chosen(files: list[str], pattern: str | None) -> list[str]:
    if pattern is not None:
        inside = pattern.rstrip("/") + "/"
        return [file for file in files if fnmatch.fnmatchcase(file, pattern) or file.startswith(inside)]
    of_each_kind = ([file for file in files if _fits(file, kind)] for kind in KINDS)
    return next(filter(None, of_each_kind), [])


def _fits(file: str, kind: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(file.lower(), pattern) for pattern in kind)


def _list_files(name: HubName) -> tuple[str, dict[str, int]]:
    """Return the commit that a name refers to, and the size of each of its files in bytes."""
    if name.revision is not None and _COMMIT.fullmatch(name.revision):
        with contextlib.suppress(OSError, FormatError):
            kept = _list_of(name.repository, name.revision)
            return name.revision, read_json(kept, dict[str, Count], most=LONGEST_LIST)
    hub = needed("huggingface_hub", str(name), extra="hub")
    with _explained(str(name)):
        info: Any = hub.HfApi().dataset_info(name.repository, revision=name.revision, files_metadata=True)
        commit, sizes = str(info.sha), {str(each.rfilename): int(each.size or 0) for each in info.siblings}
    with contextlib.suppress(OSError, StorageError):
        path = _list_of(name.repository, commit)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(sizes).encode())
    return commit, sizes


def _list_of(repository: str, commit: str) -> Path:
    return cache_folder() / "hub" / f"{repository.replace('/', '--')}@{commit}.json"


@contextlib.contextmanager
def _explained(data: str):
    """Turn whatever the hub's library raises into a DataError of one line."""
    try:
        yield
    except Exception as error:
        reason = as_clause(str(error)) or type(error).__name__
        raise DataError(f"--data {data}: cannot be downloaded from the Hugging Face hub ({reason})") from error
