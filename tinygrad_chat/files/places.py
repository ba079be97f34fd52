"""Where files are: what a user names, and the folder of what can be made again."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

CACHE_VARIABLE = "TINYGRAD_CHAT_CACHE"


def user_path(name: str | os.PathLike[str]) -> Path:
    """Return the path that a user names: `~` and `~somebody` are home folders, where there is somebody of that name.

    >>> user_path("~/text.txt") == Path.home() / "text.txt", user_path("~draft.txt").name
    (True, '~draft.txt')
    """
    return Path(os.path.expanduser(name))  # noqa: PTH111 - Path.expanduser fails for a name that is no user's


def cache_folder() -> Path:
    """Return where things are kept that can be made again: what TINYGRAD_CHAT_CACHE names, or the user's cache."""
    return user_path(os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("tinygrad_chat"))
