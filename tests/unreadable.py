"""Files and folders that cannot be read, by a fault at the call to the system: root may read everything."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def refuse_to_read(patch: pytest.MonkeyPatch, *paths: Path, code: int = errno.EACCES) -> None:
    """Let opening and listing the paths, and looking at what is in them, fail."""
    refused = {path.absolute() for path in paths}

    def refusing(call: Callable[..., Any], *, inside: bool) -> Callable[..., Any]:
        def guarded(path: Any, *arguments: Any, **options: Any) -> Any:
            place = None if isinstance(path, int) else Path(os.fsdecode(path)).absolute()
            if place is not None and (refused & {*place.parents} or (place in refused and not inside)):
                raise OSError(code, os.strerror(code), str(path))
            return call(path, *arguments, **options)

        return guarded

    for name in ("open", "scandir", "listdir"):
        patch.setattr(os, name, refusing(getattr(os, name), inside=False))
    for name in ("stat", "lstat"):
        patch.setattr(os, name, refusing(getattr(os, name), inside=True))


def contents(folder: Path) -> dict[str, bytes | str]:
    """Return all that stands below a folder: of a file what it holds, of all else what it is."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else oct(path.lstat().st_mode)
        for path in folder.rglob("*")
        if path.name != ".lock"
    }
