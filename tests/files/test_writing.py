"""Whole or not there: what is written, in which order, and what is said where it cannot be. Faults: test_faults.py."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tinygrad_chat.errors import StorageError
from tinygrad_chat.files import keep_aside, remove_partials, write_atomic, write_folder_atomic

Write = Callable[[Path], None]


def file(path: Path) -> None:
    write_atomic(path, b"new")


def folder(path: Path) -> None:
    write_folder_atomic(path, {"a": b"new", "b": b"new"})


def test_what_a_killed_process_left_behind_does_not_disturb(tmp_path: Path):
    partial = tmp_path / ".target.tgc-partial"
    partial.mkdir()
    (partial / "rest").write_bytes(b"half")
    folder(tmp_path / "target")
    assert sorted(entry.name for entry in (tmp_path / "target").iterdir()) == ["a", "b"]
    assert not partial.exists()


def test_several_who_write_a_file_at_once_do_not_disturb_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each is interrupted, before it gives its file the name, by another who writes the same from beginning to end."""
    path, waiting, seen = tmp_path / "report.html", [b"b" * 10, b"c" * 1000], []
    replace = Path.replace

    def interrupted(partial: Path, target: Path) -> None:
        if waiting:
            write_atomic(path, waiting.pop())
            seen.append(path.read_bytes())
        replace(partial, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    write_atomic(path, b"a" * 100)
    assert [*seen, path.read_bytes()] == [b"b" * 10, b"c" * 1000, b"a" * 100]
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_what_is_written_survives_who_clears_up_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    replace, times = Path.replace, iter(["cleared up", "left alone"])

    def cleared(partial: Path, target: Path) -> None:
        if next(times) == "cleared up":
            remove_partials(tmp_path)
        replace(partial, target)

    monkeypatch.setattr(Path, "replace", cleared)
    write_atomic(tmp_path / "report.html", b"a")
    assert (tmp_path / "report.html").read_bytes() == b"a"


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


def test_a_link_where_something_is_to_be_written_is_replaced_and_what_it_leads_to_stays(tmp_path: Path):
    kept = tmp_path / "elsewhere"
    kept.mkdir()
    (kept / "a").write_bytes(b"kept")
    (tmp_path / "target").symlink_to(kept / "a")
    file(tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"new"
    (tmp_path / "target").unlink()
    for name in ("target", ".target.tgc-partial", ".target.removed.tgc-partial"):
        (tmp_path / name).symlink_to(kept)
    folder(tmp_path / "target")
    assert {path.name: path.is_symlink() for path in tmp_path.iterdir()} == {"elsewhere": False, "target": False}
    assert [path.read_bytes() for path in kept.iterdir()] == [b"kept"]


def test_partials_are_removed_and_not_what_links_among_them_lead_to(tmp_path: Path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / ".a.tgc-partial").write_bytes(b"kept")
    here = tmp_path / "here"
    here.mkdir()
    (here / ".b.tgc-partial").symlink_to(kept)
    (here / ".c.tgc-partial").symlink_to(kept / ".a.tgc-partial")
    remove_partials(here)
    assert list(here.iterdir()) == []
    (here / "samples").symlink_to(kept)
    with pytest.raises(StorageError, match="samples: cannot be written: expected a folder, received a link"):
        remove_partials(here / "samples")
    assert (kept / ".a.tgc-partial").read_bytes() == b"kept"


def test_what_another_program_left_half_written_is_not_ours_to_remove(tmp_path: Path):
    for name in (".download.partial", "notes.tgc-partial", ".tgc-partial.txt"):
        (tmp_path / name).write_bytes(b"kept")
    (tmp_path / ".model.partial").mkdir()
    (tmp_path / ".log.jsonl.tgc-partial").write_bytes(b"ours")
    remove_partials(tmp_path)
    left = {entry.name for entry in tmp_path.iterdir()}
    assert left == {".download.partial", "notes.tgc-partial", ".tgc-partial.txt", ".model.partial"}


@pytest.mark.parametrize("links", [True, False])
def test_what_is_kept_aside_stays_when_a_file_is_written_anew(
    tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
):
    path, aside = tmp_path / "log", tmp_path / "aside"
    path.write_bytes(b"old")
    if not links:
        monkeypatch.setattr(os, "link", lambda *_, **__: (_ for _ in ()).throw(PermissionError("no links here")))
    keep_aside(path, aside)
    write_atomic(path, b"new")
    assert (path.read_bytes(), aside.read_bytes()) == (b"new", b"old")
