"""What is opened and listed: files and folders, not what pretends to be one, and unreadable is not absent."""

from __future__ import annotations

import errno
import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tinygrad_chat.files import (
    UnfitFileError,
    expect_plain,
    is_folder,
    is_there,
    list_folder,
    open_plain,
    plain_lines,
    read_plain,
    status_of,
)

Look = Callable[[Path], object]

LOOKS: list[Look] = [status_of, is_there, is_folder, list_folder]
OPENINGS: list[Look] = [
    lambda path: open_plain(path).close(),
    lambda path: open_plain(path, "ab").close(),
    lambda path: read_plain(path, most=100),
    lambda path: expect_plain(path, most=100),
]


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE if sys.platform != "win32" else errno.EIO])
def test_what_cannot_be_told_is_not_absent(tmp_path: Path, look: Look, code: int, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code), "there")

    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(OSError, match=os.strerror(code)):
        look(tmp_path)


def test_a_folder_that_cannot_be_listed_is_not_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(folder: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError):
        list_folder(tmp_path)


@pytest.mark.parametrize("name", ["none", "none/either", "file/none", "x" * 5000])
def test_what_is_not_there_is_absent(tmp_path: Path, name: str):
    (tmp_path / "file").touch()
    path = tmp_path / name
    assert (status_of(path), is_there(path), is_folder(path), list_folder(path)) == (None, False, False, [])


def test_a_folder_is_listed_by_name_and_a_file_is_none(tmp_path: Path):
    for name in ("b", "a", "c"):
        (tmp_path / name).touch()
    assert [path.name for path in list_folder(tmp_path)] == ["a", "b", "c"]
    with pytest.raises(UnfitFileError, match="expected a folder, received a file"):
        list_folder(tmp_path / "a")


@pytest.mark.parametrize("opening", OPENINGS)
def test_a_link_is_followed_only_where_a_user_named_it(tmp_path: Path, opening: Look):
    (tmp_path / "target").write_bytes(b"kept")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "astray").symlink_to(tmp_path / "made")
    for name in ("link", "astray"):
        with pytest.raises(UnfitFileError, match="expected a file, received a link"):
            opening(tmp_path / name)
    assert not (tmp_path / "made").exists()
    assert read_plain(tmp_path / "link", most=4, follow=True) == b"kept"


def test_a_folder_that_is_a_link_is_followed_only_where_a_user_named_it(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a").touch()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    with pytest.raises(UnfitFileError, match="expected a folder, received a link"):
        list_folder(tmp_path / "link")
    assert not is_folder(tmp_path / "link")
    assert is_folder(tmp_path / "link", follow=True)
    assert list_folder(tmp_path / "link", follow=True) == [tmp_path / "link" / "a"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with a name")
@pytest.mark.parametrize("opening", OPENINGS)
def test_nothing_waits_for_the_other_end_of_a_pipe(tmp_path: Path, opening: Look):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnfitFileError, match="expected a file, received a pipe"):
        opening(tmp_path / "pipe")


@pytest.mark.timeout(30)
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with a name")
def test_what_becomes_a_pipe_or_a_link_after_a_look_is_opened_neither(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The look is for the words; the system keeps the promise."""
    monkeypatch.setattr("tinygrad_chat.files.opening.status_of", lambda path, follow: None)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    for name, mode in itertools.product(("pipe", "link"), ("rb", "ab")):
        with pytest.raises(OSError, match=r"received a pipe|No such device|symbolic links"):
            open_plain(tmp_path / name, mode)
    assert not (tmp_path / "target").exists()


def test_a_device_is_no_file():
    with pytest.raises(UnfitFileError, match="received a device"):
        read_plain(Path(os.devnull), most=100, follow=True)


def test_reading_has_a_bound_also_for_a_file_that_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_plain(path, most=5) == b"12345"
    with pytest.raises(OSError, match="more than there is room for"):
        read_plain(path, most=4)
    fstat = os.fstat

    def grown(descriptor: int) -> os.stat_result:
        status = fstat(descriptor)
        with path.open("ab") as file:
            file.write(b"more" * 3000)
        return status

    monkeypatch.setattr(os, "fstat", grown)
    assert len(read_plain(path, most=6000)) <= 6000


def test_of_a_long_line_only_the_end_comes(tmp_path: Path):
    (tmp_path / "log").write_bytes(b"one\n" + bytes(50) + b"two\nthree")
    lines = list(plain_lines(tmp_path / "log", most=100, longest=8))
    assert lines == [b"one\n", bytes(4) + b"two\n", b"three"]
