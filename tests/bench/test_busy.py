"""The process that keeps a machine busy beside what is measured, and the end of a measurement."""

from __future__ import annotations

import signal
import subprocess
import sys

import psutil
import pytest

HOLD = "from bench.busy import busy\nwith busy():\n    print(flush=True)\n    input()"


@pytest.mark.parametrize("killed", [True, False])
def test_it_ends_with_whoever_has_started_it_however_that_ends(killed: bool):
    with subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        holder.stdout.readline()
        children = psutil.Process(holder.pid).children()
        assert len(children) == 1
        if killed:
            holder.kill()
        else:
            holder.communicate(b"\n")
    gone, alive = psutil.wait_procs(children, timeout=60)
    assert (len(gone), alive) == (1, [])


MEASURE = """
import sys
from bench import __main__, busy, train
def measure(arguments):
    with busy.busy():
        print(flush=True)
        input()
train.measure = measure
sys.argv[1:] = ["train"]
__main__.main()
"""


@pytest.mark.profile("ci")
def test_a_measurement_that_is_ended_ends_what_it_has_started():
    with subprocess.Popen([sys.executable, "-c", MEASURE], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as measuring:
        assert measuring.stdout
        measuring.stdout.readline()
        (child,) = psutil.Process(measuring.pid).children()
        measuring.send_signal(signal.SIGTERM)
        assert measuring.wait(timeout=60) == 128 + signal.SIGTERM
    assert not child.is_running()
