"""Where files are: what a user names, the folder of what can be made again, and which folders are runs."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from tinygrad_chat.files.opening import is_there

CACHE_VARIABLE = "TINYGRAD_CHAT_CACHE"

PARTS_OF_A_RUN = ("config.toml", "log.jsonl", "checkpoints")


def user_path(name: str | os.PathLike[str]) -> Path:
    """Return the path that a user names: `~` and `~somebody` are home folders, where there is somebody of that name.

    >>> user_path("~/text.txt") == Path.home() / "text.txt", user_path("~draft.txt").name
    (True, '~draft.txt')
    """
    return Path(os.path.expanduser(name))  # noqa: PTH111 - Path.expanduser fails for a name that is no user's


def real_path(path: str | os.PathLike[str]) -> Path:
    """Return where a path leads in the end. Of links that go round in a circle, which `Path.resolve` fails for, it is
    one of them."""
    return Path(os.path.realpath(path))


def cache_folder() -> Path:
    """Return where things are kept that can be made again: what TINYGRAD_CHAT_CACHE names, or the user's cache."""
    return user_path(os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("tinygrad_chat"))


def is_run(folder: Path) -> bool:
    """Return whether a run has its folder there, even a damaged one: two of its parts tell it from other folders.

    A new run has two from the first moment on. Raises OSError where that cannot be told.
    """
    return sum(is_there(folder / name) for name in PARTS_OF_A_RUN) >= 2
