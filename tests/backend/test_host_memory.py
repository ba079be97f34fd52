"""What a process may still take: the least of what the machine, its control groups and its limits leave."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tinygrad_chat.backend import available_memory, host_memory
from tinygrad_chat.backend.cupy_backend import CupyBackend

GIB = 1 << 30


def group(folder: Path, names: tuple[str, str], limit: object, used: int, stat: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in zip((*names, "memory.stat"), (limit, used, stat), strict=True):
        (folder / name).write_text(f"{value}\n")


def left(tmp_path: Path, memberships: str) -> list[int]:
    (tmp_path / "cgroup").write_text(memberships)
    return list(host_memory._left_by_control_groups(tmp_path / "cgroup", tmp_path / "root"))


def test_each_limited_control_group_of_version_2_counts_and_its_cached_files_do_not(tmp_path: Path):
    names, root = ("memory.max", "memory.current"), tmp_path / "root"
    group(root / "a", names, 8 * GIB, 3 * GIB, f"anon 5\nactive_file {GIB}\ninactive_file {GIB}")
    group(root / "a/b", names, "max", 2 * GIB, "anon 5")
    group(root / "a/b/c", names, 4 * GIB, 2 * GIB, "anon 5")
    assert left(tmp_path, "0::/a/b/c\n") == [2 * GIB, 7 * GIB]


def test_control_groups_of_version_1_are_read_too(tmp_path: Path):
    names, root = ("memory.limit_in_bytes", "memory.usage_in_bytes"), tmp_path / "root/memory"
    group(root / "x", names, 2 * GIB, GIB, f"active_file 1\ntotal_active_file 5\ntotal_inactive_file {GIB // 2}")
    group(root, names, 2**63 - 4096, 9 * GIB, "cache 1")
    assert left(tmp_path, "3:cpu,cpuacct:/\n4:memory:/x\n") == [GIB + GIB // 2 + 5]


def test_in_a_container_the_limit_stands_at_the_root(tmp_path: Path):
    group(tmp_path / "root", ("memory.max", "memory.current"), 2 * GIB, GIB, "anon 1")
    assert left(tmp_path, "0::/docker/not-here\n") == [GIB]


def test_without_control_groups_nothing_is_left_out(tmp_path: Path):
    assert left(tmp_path, "0::/\n") == []
    assert list(host_memory._left_by_control_groups(tmp_path / "nothing", tmp_path)) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="others do not keep the limits")
@pytest.mark.parametrize("kind", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_a_limit_of_the_process_counts(kind: str):
    program = (
        "import resource, psutil; from tinygrad_chat.backend import available_memory; "
        f"resource.setrlimit(resource.{kind}, (1 << 32, -1)); print(available_memory())"
    )
    found = int(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout)
    assert found < 1 << 32


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="others do not keep the limits")
def test_a_process_that_refuses_more_than_there_is_is_not_killed_for_asking():
    program = (
        "import numpy as np; from tinygrad_chat.machine.memory import refuse_more_than_available, available_memory; "
        "most = available_memory() + (1 << 30); refuse_more_than_available(); kept = []\n"
        "try:\n"
        "    while len(kept) << 28 < most: kept.append(np.empty(1 << 28, np.uint8))\n"
        "except MemoryError: print(len(kept) << 28 > most // 2)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("True\n", "")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("can't start new thread"), True),
        (RuntimeError("cudaErrorMemoryAllocation: out of memory"), True),  # CUDARuntimeError is one
        (RuntimeError("CUDA_ERROR_OUT_OF_MEMORY: out of memory"), True),
        (RuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered"), False),
        (ValueError("shapes differ"), False),
    ],
    ids=str,
)
def test_a_device_calls_its_shortage_by_other_names(error: Exception, expected: bool):
    assert CupyBackend.__new__(CupyBackend).ran_out_of_memory(error) is expected


def test_there_is_memory():
    assert available_memory() > 1 << 20
