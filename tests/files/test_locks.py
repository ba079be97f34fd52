"""One holder at a time, and nothing written over but the number of the one before."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tinygrad_chat.errors import StorageError, UsageError
from tinygrad_chat.files import exclusive_lock, expect_free, is_locked, locks


def test_a_folder_has_one_holder_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(locks, "PATIENCE", 0.0)
    at_work = pytest.raises(UsageError, match=rf"process {os.getpid()} is using it")
    with exclusive_lock(tmp_path), at_work, exclusive_lock(tmp_path):
        pass
    with exclusive_lock(tmp_path):
        pass


def test_who_holds_a_folder_is_said_only_by_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(locks, "PATIENCE", 0.0)
    with exclusive_lock(tmp_path):
        (tmp_path / ".lock").write_bytes(b"\x1b]0;hostile\x07")
        with pytest.raises(UsageError, match=": another process is using it"):
            expect_free(tmp_path)


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "target")
    for content in (None, b"precious", b""):
        if content is not None:
            (tmp_path / "target").write_bytes(content)
        refused = pytest.raises(StorageError, match=r"\.lock: cannot be written: expected a file, received a link")
        with refused, exclusive_lock(tmp_path / "run"):
            pass
        with pytest.raises(StorageError, match="received a link"):
            expect_free(tmp_path / "run")
        assert (tmp_path / "target").exists() == (content is not None)
        assert content is None or (tmp_path / "target").read_bytes() == content


def test_what_another_name_of_a_file_leads_to_is_not_written_over(tmp_path: Path):
    (tmp_path / "target").write_bytes(b"precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").hardlink_to(tmp_path / "target")
    refused = pytest.raises(
        StorageError, match=r"\.lock: is not a lock file, as it holds more than a number; remove it"
    )
    with refused, exclusive_lock(tmp_path / "run"):
        pass
    assert (tmp_path / "target").read_bytes() == b"precious"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with a name")
@pytest.mark.parametrize("kind", ["pipe", "socket", "folder"])
def test_a_lock_that_is_no_file_is_an_error_at_once(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)  # the names of sockets are short
    lock = Path(".lock")
    with socket.socket(socket.AF_UNIX) as listening:
        {"pipe": lambda: os.mkfifo(lock), "socket": lambda: listening.bind(".lock"), "folder": lock.mkdir}[kind]()
        for hold in (lambda: exclusive_lock(Path()).__enter__(), lambda: expect_free(Path())):
            with pytest.raises(StorageError, match=f"expected a file, received a {kind}; remove it"):
                hold()


def test_a_lock_that_cannot_be_read_is_not_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with exclusive_lock(tmp_path):
        pass
    assert not is_locked(tmp_path)

    def refuse(path: str, *_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StorageError, match=r"\.lock: cannot be read: no permission"):
        expect_free(tmp_path)
