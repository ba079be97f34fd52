"""Where files are: paths that users name, the cache folder, and which folders are runs."""

from __future__ import annotations

import os
from pathlib import Path

from tinygrad_chat.files.opening import is_there

CACHE_VARIABLE = "TINYGRAD_CHAT_CACHE"

PARTS_OF_A_RUN = ("config.toml", "log.jsonl", "checkpoints")


def user_path(name: str | os.PathLike[str]) -> Path:
    """Return the path that a user names, with `~` and `~somebody` expanded if there is such a user.

    >>> user_path("~/text.txt") == Path.home() / "text.txt", user_path("~draft.txt").name
    (True, '~draft.txt')
    """
    return Path(os.path.expanduser(name))  # noqa: PTH111 - Path.expanduser fails for a name that is no user's


def real_path(path: str | os.PathLike[str]) -> Path:
    """Return a path with all links resolved. For a cycle of links, on which `Path.resolve` fails, it is one of
    them."""
    return Path(os.path.realpath(path))


def cache_folder() -> Path:
    """Return the folder for data that can be recreated: TINYGRAD_CHAT_CACHE, or a folder in the user's cache."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return user_path(named)
    import platformdirs  # only here: a bare checkout on a borrowed machine measures without it

    return Path(platformdirs.user_cache_dir("tinygrad_chat"))


def is_run(folder: Path) -> bool:
    """Return whether a folder is a run's, even a damaged one: it has at least two of a run's parts.

    A new run has two from the start. Raises OSError if that cannot be determined.
    """
    return sum(is_there(folder / name) for name in PARTS_OF_A_RUN) >= 2
