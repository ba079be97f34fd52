"""`tgc profile` as a person meets it."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from tests.cli.conftest import Tgc
from tinygrad_chat.machine.limits import Limits
from tinygrad_chat.profiling import profile as module
from tinygrad_chat.training.run import Run


@pytest.fixture(autouse=True)
def known_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "measure_limits", lambda compute: Limits(product_rate=1e9, bandwidth=1e9))


TINY = ("--layers", "1", "--heads", "2", "--width", "8", "--context", "8", "--batch-size", "2", "--profile-steps", "2")


@pytest.mark.profile("ci")
def test_the_command_prints_a_row_an_op_and_names_the_bottleneck(tgc: Tgc):
    code, out, err = tgc("profile", *TINY)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    rows = [line.split()[0] for line in lines[1:] if re.match(r"\S+ +\d+ +\d+\.\d{3} +\d+\.\d{3} +\d+%", line)]
    assert {"linear", "attention", "AdamW"} <= set(rows)
    end = lines.index("")
    assert re.match(r"a step: [\d.]+ ms profiled, [\d.]+ ms otherwise \([\d,]+ tokens/s\)", lines[end + 1])
    assert lines[end + 2].startswith("measured limits: 1 GFLOP/s in matrix products, 1 GB/s")
    assert lines[-1].startswith("bottleneck: ")
    assert max(map(len, lines[:end])) <= 100
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(("host", "line"), [(0.0005, "the host submits it in 0.50 ms, "), (None, "")])
def test_a_captured_step_on_a_device_has_times_of_its_own_beside_the_table(
    tgc: Tgc, monkeypatch: pytest.MonkeyPatch, host: float | None, line: str
):
    taken = module.profile_run

    def on_device(run: Run, steps: int) -> module.Profile:
        found = {"on_device": True, "captured": True, "host_seconds": host, "device_seconds": 0.002}
        return dataclasses.replace(taken(run, steps), **found)

    monkeypatch.setattr(module, "profile_run", on_device)
    out = tgc("profile", *TINY)[1]
    assert f"\nof that, {line}the device needs 2.00 ms\n" in out
    assert "\nin training, a step is captured once and replayed (CUDA graphs); the table is of one submitted " in out


@pytest.mark.profile("ci")
@pytest.mark.parametrize("fast", [True, False])
def test_shares_above_a_limit_are_explained_where_there_are_any(tgc: Tgc, monkeypatch: pytest.MonkeyPatch, fast: bool):
    rate = 1e15 if fast else 1.0
    monkeypatch.setattr(module, "measure_limits", lambda compute: Limits(product_rate=rate, bandwidth=rate))
    out = tgc("profile", *TINY)[1]
    assert ("\nabove 100 % of a limit: small arrays stay in caches" in out) != fast
    assert bool(re.search(r" \d{3,}% ", out)) != fast


def test_json_and_a_trace_can_be_read_again(tgc: Tgc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    code, out, _ = tgc("profile", *TINY, "--json", "--trace=~/step.json")
    assert code == 0
    taken = json.loads(out)
    assert taken["rows"][0].keys() >= {"name", "forward", "backward", "flops", "bytes", "bound", "least"}
    assert taken.keys() >= {"host_seconds", "device_seconds", "captured", "bottleneck"}
    events = json.loads(Path("step.json").read_text())["traceEvents"]
    assert {event["name"] for event in events} >= {"linear", "AdamW"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--mode", "scalar"), "tgc: --mode: expected tensor, received scalar"),
        (("--profile-steps", "0"), "tgc: invalid value for '--profile-steps'"),
        (("--trace", "no/such/folder.json"), "tgc: no/such/folder.json"),
        (("--backend", "nowhere"), "tgc: --backend: expected one of auto, numpy, cupy"),
    ],
)
def test_a_mistake_is_one_line(tgc: Tgc, arguments: tuple[str, ...], message: str):
    code, out, err = tgc("profile", *TINY, *arguments)
    assert code in (2, 3)
    assert out == ""
    assert err.startswith(message)
    assert err.count("\n") == 1
