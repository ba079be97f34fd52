"""What MPICH leaves behind is removed, and nothing that anybody uses."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tinygrad_chat.parallel import shared_memory


@pytest.fixture
def segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of segments, all of them an hour old, of which process 12 uses `mpich_shm_used_0`."""
    folder, processes = tmp_path / "shm", tmp_path / "proc"
    folder.mkdir()
    an_hour_ago = time.time() - 3600
    for name in ("mpich_shm_used_0", "mpich_shm_left_0", "mpich_shar_tmpX", "another"):
        (folder / name).write_bytes(b"1")
        os.utime(folder / name, times=(an_hour_ago, an_hour_ago))
    for process in ("12", "self"):
        (processes / process).mkdir(parents=True)
        (processes / process / "maps").write_text(
            f"7f00-7f01 r--p 00000000 fe:00 1 /usr/lib/libmpi.so.12\n"
            f"7f01-7f02 rw-s 00000000 00:19 2 {folder}/mpich_shm_used_0\n"
            f"7f02-7f03 rw-s 00000000 00:19 3 {folder}/mpich_shm_gone_0 (deleted)\n"
            f"7f03-7f04 rw-s 00000000 00:19 4 {folder}/another\n"
        )
    (processes / "13").mkdir()  # has ended meanwhile
    monkeypatch.setattr(shared_memory, "SEGMENTS", folder)
    monkeypatch.setattr(shared_memory, "PROCESSES", processes)
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_old_segments_that_no_process_uses_are_removed(segments: Path):
    shared_memory.remove_unused_segments()
    assert names(segments) == {"mpich_shm_used_0", "another"}


def test_a_segment_that_somebody_is_making_stays(segments: Path):
    os.utime(segments / "mpich_shm_left_0")
    shared_memory.remove_unused_segments()
    assert names(segments) == {"mpich_shm_used_0", "mpich_shm_left_0", "another"}


def test_who_ends_removes_its_own(segments: Path):
    shared_memory.remove_own_segments()
    assert names(segments) == {"mpich_shm_left_0", "mpich_shar_tmpX", "another"}


def test_where_processes_cannot_be_seen_nothing_is_removed(segments: Path, monkeypatch: pytest.MonkeyPatch):
    before = names(segments)
    monkeypatch.setattr(shared_memory, "PROCESSES", segments / "another")  # not a folder
    shared_memory.remove_unused_segments()
    monkeypatch.setattr(shared_memory, "PROCESSES", segments / "none")
    shared_memory.remove_unused_segments()
    assert names(segments) == before


def test_where_there_is_no_such_folder_there_is_nothing_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shared_memory, "SEGMENTS", tmp_path / "none")
    monkeypatch.setattr(shared_memory, "PROCESSES", tmp_path / "none")
    shared_memory.remove_unused_segments()
    shared_memory.remove_own_segments()
