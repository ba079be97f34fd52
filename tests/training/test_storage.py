"""Whole or not there: a failure at any system call leaves the old state and no half file."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tinygrad_chat.errors import StorageError
from tinygrad_chat.training.storage import write_whole, write_whole_folder

Write = Callable[[Path], None]


def file(path: Path) -> None:
    write_whole(path, b"new")


def folder(path: Path) -> None:
    write_whole_folder(path, {"a": b"new", "b": b"new"})


def fail_at(call: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let the call-th of the writer's system calls fail as on a full disk; return the list of those made."""
    made: list[str] = []

    def watched(name: str, original: Callable[..., object]) -> Callable[..., object]:
        def system_call(*arguments: object, **options: object) -> object:
            made.append(name)
            if len(made) == call:
                raise OSError(errno.ENOSPC, "No space left on device")
            return original(*arguments, **options)

        return system_call

    for owner, name in [(os, "fsync"), (Path, "open"), (Path, "mkdir"), (Path, "rename"), (Path, "replace")]:
        monkeypatch.setattr(owner, name, watched(name, getattr(owner, name)))
    return made


@pytest.mark.parametrize("write", [file, folder])
@pytest.mark.parametrize("call", range(1, 12))
def test_a_full_disk_at_any_call_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write, call: int
):
    path = tmp_path / "target"
    with monkeypatch.context() as patch:
        made = fail_at(call, patch)
        message = ""
        try:
            write(path)
        except StorageError as error:
            message = str(error)
    assert ("the disk is full" in message) == (len(made) >= call)
    contents = [target.read_bytes() for target in ([path] if path.is_file() else path.glob("*"))]
    assert contents == [] or contents == [b"new"] * (1 if write is file else 2)
    assert [entry.name for entry in tmp_path.iterdir()] in ([], ["target"])


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "target"
    path.write_bytes(b"old")
    with monkeypatch.context() as patch:
        fail_at(2, patch)
        with pytest.raises(StorageError):
            file(path)
    assert path.read_bytes() == b"old"
    file(path)
    assert path.read_bytes() == b"new"


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
    with pytest.raises(StorageError, match="no permission; choose another folder with --out"):
        file(tmp_path / "target")


@pytest.mark.parametrize(("write", "files"), [(file, 1), (folder, 2)])
def test_every_file_is_forced_to_the_disk_before_it_gets_its_name(
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
