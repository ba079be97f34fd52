"""Whole or not there: what is written, in which order, and what is said where it cannot be. Faults: test_faults.py."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tinygrad_chat import files
from tinygrad_chat.errors import StorageError, UsageError
from tinygrad_chat.files import exclusive_lock, write_atomic, write_folder_atomic

Write = Callable[[Path], None]


def file(path: Path) -> None:
    write_atomic(path, b"new")


def folder(path: Path) -> None:
    write_folder_atomic(path, {"a": b"new", "b": b"new"})


def test_what_a_killed_process_left_behind_does_not_disturb(tmp_path: Path):
    partial = tmp_path / ".target.partial"
    partial.mkdir()
    (partial / "rest").write_bytes(b"half")
    folder(tmp_path / "target")
    assert sorted(entry.name for entry in (tmp_path / "target").iterdir()) == ["a", "b"]
    assert not partial.exists()


def test_no_permission_is_told_apart_from_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(StorageError, match="no permission; choose another folder, or change its permissions"):
        file(tmp_path / "target")


@pytest.mark.parametrize(("write", "files"), [(file, 1), (folder, 2)])
def test_every_file_is_forced_to_the_disk_before_it_gets_its_name_and_then_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write, files: int
):
    made: list[str] = []
    fsync, rename, replace = os.fsync, Path.rename, Path.replace
    is_file = lambda descriptor: stat.S_ISREG(os.fstat(descriptor).st_mode)  # noqa: E731
    monkeypatch.setattr(os, "fsync", lambda d: (made.append("file" if is_file(d) else "folder"), fsync(d)))
    monkeypatch.setattr(Path, "rename", lambda path, target: (made.append("name"), rename(path, target)))
    monkeypatch.setattr(Path, "replace", lambda path, target: (made.append("name"), replace(path, target)))
    write(tmp_path / "target")
    assert made[:files] == ["file"] * files
    assert made.index("name") > made.index("file")
    assert made[-1] == "folder"  # in which the name stands, after it was given


def test_a_folder_has_one_holder_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(files, "PATIENCE", 0.0)
    at_work = pytest.raises(UsageError, match=rf"process {os.getpid()} is at work there")
    with exclusive_lock(tmp_path), at_work, exclusive_lock(tmp_path):
        pass
    with exclusive_lock(tmp_path):
        pass
