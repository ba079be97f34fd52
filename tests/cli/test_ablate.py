"""`tgc ablate` with several runs at once: what a person sees of it, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import TINY_BIGRAM, Tgc
from tests.cli.test_display import Terminal
from tests.experiments.processes import Processes, crash, stand_ins, write_result
from tinygrad_chat.cli.ablation_display import open_ablation_display
from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.experiments.jobs import Failed, Finished, Running
from tinygrad_chat.experiments.planned import PlannedRun
from tinygrad_chat.experiments.progress import Progress

ABLATE = ["ablate", *TINY_BIGRAM, "--vary", "tied", "--seeds", "2", "--out", "a"]


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Processes:
    return stand_ins(monkeypatch)


@pytest.mark.profile("ci")
def test_several_runs_at_once_leave_the_table_of_one_after_another(tgc: Tgc, processes: Processes):
    code, out, err = tgc(*ABLATE, "--jobs", "3", "--threads", "1")
    assert (code, err) == (0, "")
    assert out.count("val_loss=2.0000 seconds=1.0") == 4
    assert re.search(r"^tied +val_loss .*\non +2\.0000 +± 0\.0000 +3\.0000 +2 +9\n", out, re.MULTILINE)
    assert {"results.csv", "results.md", "results.svg"} <= {path.name for path in Path("a").iterdir()}
    table = out[out.index("tied  ") :]
    assert tgc(*ABLATE, "--jobs", "1", "--threads", "1") == (0, table, "")  # nothing is left to do


@pytest.mark.profile("ci")
def test_runs_that_fail_are_named_with_the_reason_and_marked_in_the_table(tgc: Tgc, processes: Processes):
    processes.behave["tied=on,seed=2"] = crash
    code, out, err = tgc(*ABLATE, "--jobs", "2")
    assert code == 1
    assert "tied=on,seed=2 failed: killed by SIGKILL\n" in out
    assert re.search(r"^on +2\.0000 +3\.0000 +1, 1 failed +9$", out, re.MULTILINE)
    assert "1, 1 failed" in Path("a/results.md").read_text()
    assert err == (
        "tgc: 1 of 4 runs failed, tied=on,seed=2 first; output.txt in each folder says why; the same command "
        "tries them again\n"
    )


@pytest.mark.profile("ci")
def test_where_all_fail_there_is_a_table_of_failures(tgc: Tgc, processes: Processes):
    processes.behave = {f"tied={tied},seed={seed}": crash for tied in ("on", "off") for seed in (1, 2)}
    code, out, err = tgc(*ABLATE, "--jobs", "2")
    assert (code, err[:28]) == (1, "tgc: 4 of 4 runs failed, tie")
    assert re.search(r"^on +inf +inf +0, 2 failed$", out, re.MULTILINE)


@pytest.mark.profile("ci")
def test_a_run_that_diverges_is_no_failure(tgc: Tgc, processes: Processes):
    def diverge(path: Path) -> bool:
        write_result(path, diverged=True, val_loss=None, val_bpb=None, steps=3)
        return True

    processes.behave["tied=on,seed=2"] = diverge
    code, out, err = tgc(*ABLATE, "--jobs", "2")
    assert (code, err) == (0, "")
    assert "tied=on,seed=2 diverged at step 3 seconds=1.0\n" in out
    assert "1, 1 diverged" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--jobs", "0"], "--jobs: expected at least 1, received 0"),
        (["--jobs", "-3"], "--jobs: expected at least 1, received -3"),
        (["--detach"], "--detach: has no effect without --submit"),
        (["--slurm-option", "time=5"], "--slurm-option: has no effect without --submit"),
        (["--submit", "sge"], "--submit: expected one of slurm, local, received 'sge'"),
    ],
)
def test_what_cannot_be_is_one_line(tgc: Tgc, options: list[str], message: str):
    assert tgc(*ABLATE, *options) == (2, "", f"tgc: {message}\n")
    assert not Path("a").exists()


def test_without_submitit_the_extra_is_named(tgc: Tgc, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    message = "tgc: --submit slurm: needs submitit, the extra slurm: pip install submitit\n"
    assert tgc(*ABLATE, "--submit", "slurm") == (2, "", message)


@pytest.mark.profile("ci")
@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_jobs_go_on_alone_and_the_same_command_collects(tgc: Tgc):
    pytest.importorskip("submitit")
    ablate = ["ablate", *TINY_BIGRAM, "--kernels", "numpy", "--vary", "tied=on", "--seeds", "1", "--out", "a"]
    command = [*ablate, "--submit", "local", "--detach"]
    code, out, err = tgc(*command)
    assert (code, err) == (0, "")
    assert re.fullmatch(
        r"1 run submitted to local: 1 job, \d+\n"
        r"1 run queued or running; the same command collects the results. Results so far: a\n",
        out,
    )
    assert tgc(*ablate, "--jobs", "1")[0] == 2
    while not Path("a/runs/tied=on,seed=1/result.json").exists():
        time.sleep(0.02)
    code, out, err = tgc(*command)
    assert (code, err) == (0, "")
    assert re.search(r"^on +[\d.]+ +[\d.]+ +1 +[\d,]+$", out, re.MULTILINE)


def planned(name: str) -> PlannedRun:
    return PlannedRun({}, TrainingConfig(), Path(name))


def test_a_terminal_shows_each_run_that_is_trained_with_step_loss_and_time_left(monkeypatch: pytest.MonkeyPatch):
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}.items():
        monkeypatch.setenv(name, value)
    terminal = Terminal()
    with open_ablation_display(terminal, runs=9, done=4, at_once=True) as display:
        display.progressed("reading", 1, 2)
        display.show_news(Running(planned("a\x1b[31m"), None))
        display.show_news(Running(planned("b"), Progress(1234, 0.25, 2.3456, 60.0)))
        display._progress.refresh()  # pyright: ignore[reportAttributeAccessIssue]
        rows = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue()).splitlines()[-3:]
        assert [re.sub(r" *[━╺╸]+ *", "|", " ".join(row.split())) for row in rows] == [
            r"4 of 9 runs|44%",
            r"a\x1b[31m|0%",
            "b step 1,234 loss 2.346|25% 3 min 0 s left",
        ]
        display.show_news(Failed(planned("b"), "killed"))
        row = {"steps": 6, "val_loss": 2.0, "seconds": 1.0}
        display.show_news(Finished(planned("a\x1b[31m"), row))  # pyright: ignore[reportArgumentType]
        described = [str(task.description) for task in display._progress.tasks]  # pyright: ignore[reportAttributeAccessIssue]
        assert described == ["5 of 9 runs"]
    shown = terminal.text()
    assert "b failed: killed\n" in shown
    assert r"a\x1b[31m val_loss=2.0000 seconds=1.0" in shown


LONG = [*TINY_BIGRAM, "--steps", "1000000", "--eval-every", "1000000", "--kernels", "numpy", "--threads", "1"]


@pytest.mark.profile("ci")
@pytest.mark.skipif(os.name != "posix", reason="Windows has no signals for one process")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_whatever_ends_the_command_its_processes_leave_checkpoints_and_end(
    tmp_path: Path, number: signal.Signals, code: int
):
    command = [sys.executable, "-m", "tinygrad_chat", "ablate", *LONG, "--vary", "tied=on|off", "--seeds", "1"]
    with subprocess.Popen(
        [*command, "--jobs", "2", "--out", "a"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        runs = [tmp_path / "a" / "runs" / f"tied={tied},seed=1" for tied in ("on", "off")]
        while not all((run / "log.jsonl").exists() and (run / "log.jsonl").read_text().count("\n") > 2 for run in runs):
            time.sleep(0.02)
        process.send_signal(number)
        out, err = process.communicate()
    assert (process.returncode, err) == (code, "")
    while not all((run / "outcome.json").exists() for run in runs):
        assert number == signal.SIGKILL  # else it has waited for them
        time.sleep(0.02)
    for run in runs:
        outcome = json.loads((run / "outcome.json").read_text())
        assert outcome["outcome"] == "interrupted"
        assert (run / "checkpoints" / f"step-{outcome['step']:06d}" / "weights.safetensors").exists()
    if number == signal.SIGINT:
        assert "stopping after this step, with a checkpoint" in out
        assert out.endswith("interrupted; continue with the same command. Results so far: a\n")
