"""`tgc train` by ranks on several hosts: network namespaces of this machine, each with an address of its own.

The hosts share no memory: MPI's TCP goes over a bridge, from which one of them is cut off.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.cli.test_ranks import LONG, WITHIN, Started, outcome, runs_tgc, wait_for_step
from tests.profiles import DEEP

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux's"),
    pytest.mark.skipif(shutil.which("ip") is None, reason="needs the program ip, of iproute2"),
    DEEP,
]
mpi4py = pytest.importorskip("mpi4py", reason="needs the extra mpi")

BUSY = 2 * WITHIN
"""Seconds until all have ended where silence must first be heard: on a machine that does nothing else, 9."""
OVER_TCP = {"MPIR_CVAR_NOLOCAL": "1", "MPIR_CVAR_CH4_NETMOD": "ofi", "FI_PROVIDER": "tcp"}
SHELL = """#!/bin/sh
# In place of ssh: [-x] 10.77.0.NUMBER COMMAND...
[ "$1" = -x ] && shift
number=${1##*.}; shift
exec ip netns exec NETWORK-$number unshare --uts sh -c "hostname host-$number; exec $*"
"""


class Network:
    """Hosts 1, 2, ... at one bridge."""

    def __init__(self, hosts: int, folder: Path) -> None:
        self.hosts = range(1, hosts + 1)
        self._name = f"tgc{os.getpid()}"
        self._shell = folder / "shell"
        self._shell.write_text(SHELL.replace("NETWORK", self._name))
        self._shell.chmod(0o700)

    def open(self) -> None:
        """Make all of it. Raises CalledProcessError where that is not allowed."""
        _ip("netns", "add", self._name)
        _ip("-n", self._name, "link", "add", "bridge", "type", "bridge")
        _ip("-n", self._name, "link", "set", "bridge", "up")
        for number in self.hosts:
            host, port = f"{self._name}-{number}", f"port{number}"
            _ip("netns", "add", host)
            _ip("link", "add", "wire", "netns", host, "type", "veth", "peer", "name", port, "netns", self._name)
            _ip("-n", self._name, "link", "set", port, "master", "bridge", "up")
            _ip("-n", host, "link", "set", "lo", "up")
            _ip("-n", host, "addr", "add", f"10.77.0.{number}/24", "dev", "wire")
            _ip("-n", host, "link", "set", "wire", "up")

    def close(self) -> None:
        for name in (self._name, *(f"{self._name}-{number}" for number in self.hosts)):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)

    def cut_off(self, number: int) -> None:
        _ip("-n", self._name, "link", "set", f"port{number}", "down")

    def sent(self, number: int) -> int:
        """How many bytes have left a host."""
        found = json.loads(_ip("-n", f"{self._name}-{number}", "-json", "-statistics", "link", "show", "wire"))
        return found[0]["stats64"]["tx"]["bytes"]

    def mpiexec(self, *hosts: int) -> list[str]:
        """What starts a rank on each of the hosts, from the first of them."""
        program = Path(sys.executable).parent / "mpiexec"
        addresses = [f"10.77.0.{number}" for number in hosts]
        return [
            *(str(self._shell), addresses[0], str(program), "-disable-auto-cleanup", "-launcher", "ssh"),
            *("-launcher-exec", str(self._shell), "-hosts", ",".join(addresses), "-n", str(len(hosts))),
        ]


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    from tinygrad_chat.parallel.mpi import open_mpi

    if open_mpi().get_vendor()[0] != "MPICH":
        pytest.skip("the hosts are reached as MPICH's mpiexec does")
    found = Network(3, tmp_path)
    try:
        found.open()
        yield found
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces are not allowed here: {error.stderr.strip()}")
    finally:
        found.close()


@pytest.fixture
def train(network: Network, tmp_path: Path) -> Iterator[Callable[..., Started]]:
    started: list[Started] = []
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog\n" * 50)

    def start(hosts: tuple[int, ...], *arguments: object) -> Started:
        options = ["--data", text, "--out", tmp_path / "run", *arguments]
        started.append(Started(*options, by=network.mpiexec(*hosts), environment={**os.environ, **OVER_TCP}))
        return started[-1]

    yield start
    for each in started:
        each.kill()


def ranks(started: Started, count: int) -> dict[str, psutil.Process]:
    """The processes of the ranks by their ranks, as soon as all are there."""
    while len(started.seen) < count:
        assert started.process.poll() is None, started.process.communicate()
        started.seen = {each for each in psutil.Process(started.process.pid).children(recursive=True) if runs_tgc(each)}
        time.sleep(0.02)
    return {each.environ()["PMI_RANK"]: each for each in started.seen}


@pytest.mark.parametrize(("how", "victim"), [("cut off", 2), ("cut off", 1), ("killed", 3)])
def test_hosts_train_together_and_end_with_one_line_when_one_is_lost(
    train: Callable[..., Started], network: Network, tmp_path: Path, how: str, victim: int
):
    started = train((1, 2, 3), *LONG)
    found = ranks(started, 3)
    wait_for_step(tmp_path)
    if how == "killed":
        found[str(victim - 1)].kill()
    else:
        network.cut_off(victim)
    code, error = started.end(BUSY)
    assert (code, error.count("\n")) == (3, 1), error
    lost = max(victim - 1, 1)  # who is cut off with rank 0 misses the others
    assert error.startswith(f"tgc: rank {lost} (process {found[str(lost)].pid} on host-{lost + 1}): has ")
    assert ("has not responded" in error) == (how == "cut off")
    assert f"resume with: tgc train --resume --out {tmp_path / 'run'}" in error
    step = outcome(tmp_path)["step"]
    assert step > 2
    assert min(map(network.sent, network.hosts)) > step * 257 * 256 * 4 / 3
    assert not list((tmp_path / "run").rglob("*.partial*"))
    left = [number for number in network.hosts if number != victim]
    assert train(tuple(left), "--resume", "--steps", step + 1, "--eval-every", 1000).end(BUSY) == (0, "")
    assert outcome(tmp_path)["outcome"] == "finished"
