"""A run in a process of its own: what it writes, how it is stopped, and what is said where it dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tiny import tiny_settings
from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.experiments import job as job_module
from tinygrad_chat.experiments.ablation import Ablation, parse_variation
from tinygrad_chat.experiments.job import COMMAND, Job, last_words
from tinygrad_chat.experiments.jobs import Finished, run_jobs
from tinygrad_chat.experiments.planned import OUTPUT, read_result
from tinygrad_chat.experiments.progress import Progress, read_progress
from tinygrad_chat.experiments.results import read_rows
from tinygrad_chat.experiments.running import run_ablation
from tinygrad_chat.runs.folder import RunFolder

Configure = Callable[..., TrainingConfig]
posix = pytest.mark.skipif(os.name != "posix", reason="Windows has no signals for one process")


@pytest.mark.profile("ci")
def test_two_processes_come_to_the_numbers_of_one_to_the_bit(text: Path, tmp_path: Path):
    settings = tiny_settings(data=str(text), layers=1, heads=2, kernels="numpy", threads=1)
    ablation = Ablation(settings, parse_variation("tied"), 1)
    news = list(run_jobs(ablation, tmp_path / "jobs", 2))
    assert [type(each) for each in news].count(Finished) == 2
    for _ in run_ablation(ablation, tmp_path / "one"):
        pass
    jobs, one = (sorted(read_rows(tmp_path / name), key=lambda row: row["cell"]) for name in ("jobs", "one"))
    assert [{**row, "seconds": 0} for row in jobs] == [{**row, "seconds": 0} for row in one]
    for name in ("tied=on,seed=1", "tied=off,seed=1"):
        logs = [(tmp_path / way / "runs" / name / "log.jsonl").read_bytes() for way in ("jobs", "one")]
        assert logs[0] == logs[1]


def wait_for(condition: Callable[[], object]) -> None:
    while not condition():
        time.sleep(0.01)


@pytest.mark.profile("ci")
@pytest.mark.parametrize(
    "how",
    ["its input ends", *(pytest.param(name, marks=posix) for name in ("SIGTERM", "SIGUSR2"))],
)
def test_it_stops_with_a_checkpoint_of_its_last_step(tiny: Configure, tmp_path: Path, how: str):
    config = tiny(model="bigram", steps=10**6, kernels="numpy", eval_every=10**6)
    with Job(config, tmp_path / "run") as job:
        wait_for(lambda: (read_progress(config, tmp_path / "run") or Progress(0, 0, None, 0)).step > 3)
        if how.startswith("SIG"):
            job._process.send_signal(getattr(signal, how))
            assert job.wait() == 128 + getattr(signal, how)
            assert last_words(tmp_path / "run") == f"stopped by {how}"
        else:
            job.stop()
            assert job.wait() == 0
    folder = RunFolder(tmp_path / "run")
    outcome = folder.read_outcome()
    assert (outcome["outcome"], read_result(folder.path)) == ("interrupted", None)
    assert folder.newest_checkpoint().name == f"step-{outcome['step']:06d}"


def play(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Let processes run another program than ours, which takes less time to start."""
    monkeypatch.setattr(job_module, "COMMAND", (sys.executable, "-S", "-c", program))


@pytest.mark.parametrize(
    ("program", "code", "words"),
    [
        ("print('a', flush=True); raise ValueError('too\x1b much')", 1, "ValueError: too\x1b much"),
        ("import os; os._exit(7)", 7, "ended with exit code 7 and no output"),
        ("import os; print('a line', flush=True); os._exit(7)", 7, "a line"),
        pytest.param(
            "import os; os.kill(os.getpid(), 9)",
            -9,
            "killed by SIGKILL, as the system does when memory runs out",
            marks=posix,
        ),
        pytest.param("import os; os.kill(os.getpid(), 11)", -11, "killed by SIGSEGV", marks=posix),
    ],
)
def test_what_ends_a_process_is_the_last_line_of_its_output(
    tiny: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, code: int, words: str
):
    (tmp_path / OUTPUT).write_text("what an earlier process has said\n")
    play(monkeypatch, program)
    job = Job(tiny(), tmp_path)
    wait_for(job.ended)
    assert (job.wait(), last_words(tmp_path)) == (code, words)
    assert (tmp_path / OUTPUT).read_text().startswith("what an earlier process has said\n")
    assert (tmp_path / OUTPUT).read_text().count(words) == 1


def test_a_process_learns_what_to_train_and_on_which_device(
    tiny: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    play(monkeypatch, "import os, sys; print(os.environ['CUDA_VISIBLE_DEVICES'], sys.argv[1], sys.stdin.readline())")
    config = tiny(seed=7)
    with Job(config, tmp_path / "a", device="3", confirmed=True) as job:
        job.wait()
    device, path, request = (tmp_path / "a" / OUTPUT).read_text().split(maxsplit=2)
    assert (device, path) == ("3", str(tmp_path / "a"))
    assert json.loads(request) == {"settings": config.used_settings(), "confirmed": True}


def test_a_process_that_is_to_end_at_once_does(tiny: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    play(monkeypatch, "import sys, time; sys.stdin.readline(); time.sleep(600)")
    job = Job(tiny(), tmp_path)
    assert not job.ended()
    job.kill()
    assert job.ended()


STARTS_ONE = """
import sys, time
from pathlib import Path
from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.experiments import job
job.COMMAND = (sys.executable, "-S", "-c", sys.argv[2])
started = job.Job(TrainingConfig(), Path(sys.argv[1]))
print(started._process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.profile("ci")
@posix
def test_the_input_of_a_process_ends_when_who_has_started_it_is_killed(tmp_path: Path):
    waits = "import sys; sys.stdin.read(); print('it has ended', flush=True)"
    with subprocess.Popen([sys.executable, "-c", STARTS_ONE, tmp_path, waits], stdout=subprocess.PIPE) as starter:
        assert starter.stdout
        assert starter.stdout.readline()
        starter.kill()
    wait_for(lambda: last_words(tmp_path) == "it has ended")


@pytest.mark.profile("ci")
def test_a_process_whose_request_never_comes_ends(tmp_path: Path):
    done = subprocess.run([*COMMAND, tmp_path], input=b"", capture_output=True)
    assert done.returncode != 0


@pytest.mark.parametrize(
    ("steps", "minutes", "log", "timing", "found"),
    [
        (100, None, '{"step": 25, "loss": 2.5}', '{"step": 25, "seconds": 10.0}', Progress(25, 0.25, 2.5, 10.0)),
        (
            100,
            None,
            '{"step": 25, "loss": 2.5}\n{"step": 3',
            '{"step": 25, "seconds": 1.0}',
            Progress(25, 0.25, 2.5, 1),
        ),
        (10**9, 1.0, '{"step": 25, "loss": 2.5}', '{"step": 25, "seconds": 15.0}', Progress(25, 0.25, 2.5, 15.0)),
        (100, None, '{"step": 100, "val_loss": 2.5}', '{"step": 100, "seconds": 1.0}', Progress(100, 1.0, None, 1.0)),
        (100, None, "", "", None),
    ],
)
def test_how_far_a_run_has_come_is_what_its_log_says_last(
    tmp_path: Path, steps: int, minutes: float | None, log: str, timing: str, found: Progress | None
):
    config = TrainingConfig.of(steps=steps, minutes=minutes)
    assert read_progress(config, tmp_path) is None
    (tmp_path / "log.jsonl").write_text('{"step": 0, "loss": 9.0}\n' * bool(log) + log)
    (tmp_path / "timing.jsonl").write_text(timing)
    assert read_progress(config, tmp_path) == found


def test_the_time_left_follows_from_the_pace():
    assert Progress(25, 0.25, 2.5, 10.0).seconds_left == 30.0
    assert Progress(0, 0.0, 2.5, 0.0).seconds_left is None
