"""Runs as jobs of a cluster: submitted once, collected whenever the command is given again, and what sbatch is told."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.experiments.processes import write_result
from tests.tiny import tiny_settings
from tinygrad_chat.errors import UsageError
from tinygrad_chat.experiments import submission
from tinygrad_chat.experiments.ablation import Ablation, parse_variation
from tinygrad_chat.experiments.jobs import Failed, Finished, News, Running, Stopped, run_jobs
from tinygrad_chat.experiments.planned import OUTPUT
from tinygrad_chat.experiments.results import read_rows, read_submitted
from tinygrad_chat.experiments.submission import minutes_of, parse_cluster_options, run_submitted


@pytest.fixture
def ablation(text: Path) -> Ablation:
    settings = tiny_settings(data=str(text), model="bigram", kernels="numpy", threads=1)
    return Ablation(settings, parse_variation("tied"), seeds=1)


NAMES = ["tied=on,seed=1", "tied=off,seed=1"]


def test_times_are_those_of_slurm():
    written = ["90", "90:00", "1:30:00", "1-12", "1-12:30", "1-12:30:01", "0:30"]
    assert [minutes_of(time) for time in written] == [90, 90, 90, 2160, 2190, 2191, 1]
    for time in ("", "soon", "1:2:3:4", "-5", "1:-2"):
        with pytest.raises(UsageError, match="expected minutes or hours:minutes:seconds, received"):
            minutes_of(time)


def test_options_are_those_of_sbatch():
    assert parse_cluster_options(["--partition=gpu", "gres=gpu:1", "cpus-per-task=4", "time=5"], "slurm") == {
        "partition": "gpu",
        "gres": "gpu:1",
        "cpus_per_task": "4",
        "time": "5",
    }
    with pytest.raises(UsageError, match="expected how long a job may take, as in --slurm-option time=2:00:00"):
        parse_cluster_options(["partition=gpu"], "slurm")
    with pytest.raises(UsageError, match="--slurm-option time: expected minutes or"):
        parse_cluster_options(["time=soon"], "slurm")
    for option in ("partition", "=gpu", "--=3"):
        with pytest.raises(UsageError, match="expected an option of sbatch, as in partition=gpu, received"):
            parse_cluster_options([option], "slurm")


class Cluster:
    """Stands in for submitit: jobs that end as they are told to."""

    def __init__(self) -> None:
        self.arrays: list[list[str]] = []
        self.parameters: dict[str, Any] = {}
        self.states: dict[str, str] = {}
        self.numbers: dict[str, str] = {}
        self.refuses = ""
        self.SlurmExecutor = SimpleNamespace(affinity=lambda: 2)

    def AutoExecutor(self, folder: Path, **options: Any) -> Any:  # noqa: N802 - submitit's name
        return SimpleNamespace(folder=folder, update_parameters=self.parameters.update, submit_array=self._submit)

    def _submit(self, runs: list[Any]) -> list[Any]:
        if self.refuses:
            raise RuntimeError(self.refuses)
        self.arrays.append([run.path.name for run in runs])
        for place, run in enumerate(runs):
            self.numbers[run.path.name] = f"{len(self.arrays)}_{place}"
        return [self.SlurmJob(Path(), self.numbers[run.path.name]) for run in runs]

    def SlurmJob(self, folder: Path, job_id: str) -> Any:  # noqa: N802
        def state() -> str:
            return self.states.get(job_id, "PENDING")

        class Job:
            paths = SimpleNamespace(stderr=folder / f"{job_id}.err")
            state = property(lambda self: state())

            def done(self) -> bool:
                return state() not in ("PENDING", "RUNNING")

        found = Job()
        found.job_id = job_id  # pyright: ignore[reportAttributeAccessIssue]
        return found

    LocalJob = SlurmJob

    def end(self, name: str, state: str = "COMPLETED") -> None:
        self.states[self.numbers[name]] = state


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    found = Cluster()
    monkeypatch.setitem(sys.modules, "submitit", found)
    monkeypatch.setattr(submission, "POLL", 0)
    return found


def submit(ablation: Ablation, folder: Path, **options: Any) -> Iterator[News]:
    return run_submitted(ablation, folder, **{"cluster": "slurm", "options": {"time": "5"}, **options})


def kinds(news: Iterator[News]) -> list[tuple[type[News], str]]:
    return [(type(each), each.run.name) for each in news]


def test_what_was_submitted_is_collected_by_the_same_call_and_never_submitted_twice(
    ablation: Ablation, tmp_path: Path, cluster: Cluster
):
    said: list[str] = []
    assert kinds(submit(ablation, tmp_path, detach=True, say=said.append)) == [(Stopped, name) for name in NAMES]
    assert said == ["2 runs submitted to slurm: 1 job, 1"]
    write_result(tmp_path / "runs" / NAMES[0])
    cluster.end(NAMES[0])
    assert kinds(submit(ablation, tmp_path, detach=True)) == [(Stopped, NAMES[1])]  # that was there at once
    assert [row["cell"] for row in read_rows(tmp_path)] == ["tied=on"]
    write_result(tmp_path / "runs" / NAMES[1])
    assert kinds(submit(ablation, tmp_path)) == []
    assert len(read_rows(tmp_path)) == 2
    assert cluster.arrays == [NAMES]


def test_it_waits_until_all_have_ended_and_shows_how_far_they_are(ablation: Ablation, tmp_path: Path, cluster: Cluster):
    folder = tmp_path / "runs" / NAMES[0]

    def go_on() -> Iterator[bool]:
        yield False
        folder.mkdir(parents=True)
        (folder / "log.jsonl").write_text('{"step": 3, "loss": 2.5}\n')
        (folder / "timing.jsonl").write_text('{"step": 3, "seconds": 1.0}\n')
        yield False
        for name in NAMES:
            write_result(tmp_path / "runs" / name)
        yield from itertools.repeat(False)

    moments = go_on()
    found = list(submit(ablation, tmp_path, should_stop=lambda: next(moments)))
    assert [type(each) for each in found] == [Running, Finished, Finished]
    assert isinstance(found[0], Running)
    assert found[0].progress
    assert found[0].progress.step == 3
    assert read_submitted(tmp_path)["jobs"] == {}


@pytest.mark.parametrize(
    ("state", "output", "reason"),
    [
        ("COMPLETED", "a\nValueError: b\n", "ValueError: b"),
        ("OUT_OF_MEMORY", "", "OUT_OF_MEMORY"),
        ("CANCELLED by 0", "a\nstopped by SIGTERM\n", "CANCELLED by 0: stopped by SIGTERM"),
        ("COMPLETED", "", "no output; see "),
    ],
)
def test_a_job_that_ends_without_a_result_has_failed_and_is_submitted_anew(
    ablation: Ablation, tmp_path: Path, cluster: Cluster, state: str, output: str, reason: str
):
    list(submit(ablation, tmp_path, detach=True))
    write_result(tmp_path / "runs" / NAMES[0])
    path = tmp_path / "runs" / NAMES[1]
    path.mkdir()
    (path / OUTPUT).write_text(output)
    cluster.end(NAMES[1], state)
    (failed,) = submit(ablation, tmp_path)
    assert isinstance(failed, Failed)
    assert failed.reason.startswith(reason)
    assert kinds(submit(ablation, tmp_path, detach=True)) == [(Stopped, NAMES[1])]
    assert cluster.arrays == [NAMES, NAMES[1:]]


def test_a_stop_leaves_the_jobs_alone(ablation: Ablation, tmp_path: Path, cluster: Cluster):
    assert kinds(submit(ablation, tmp_path, should_stop=lambda: True)) == [(Stopped, name) for name in NAMES]
    assert read_submitted(tmp_path) == {"cluster": "slurm", "jobs": {NAMES[0]: "1_0", NAMES[1]: "1_1"}}


def test_what_was_submitted_is_trained_nowhere_else(ablation: Ablation, tmp_path: Path, cluster: Cluster):
    list(submit(ablation, tmp_path, detach=True))
    for call in (lambda: run_jobs(ablation, tmp_path, 1), lambda: submit(ablation, tmp_path, cluster="local")):
        with pytest.raises(
            UsageError, match="2 runs already submitted to slurm; collect the results with --submit slurm"
        ):
            list(call())


def test_arrays_are_no_longer_than_slurm_takes(
    ablation: Ablation, tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(submission, "MAX_IN_AN_ARRAY", 1)
    list(submit(ablation, tmp_path, detach=True))
    assert cluster.arrays == [NAMES[:1], NAMES[1:]]


def test_jobs_that_are_refused_are_one_line(ablation: Ablation, tmp_path: Path, cluster: Cluster):
    cluster.refuses = "sbatch: error: Invalid partition specified: gpu\nBatch job submission failed"
    with pytest.raises(UsageError, match=r"^--submit: the jobs were refused: sbatch: error: Invalid partition"):
        list(submit(ablation, tmp_path))
    assert read_submitted(tmp_path)["jobs"] == {}


def test_without_slurm_it_is_one_line(ablation: Ablation, tmp_path: Path, cluster: Cluster):
    cluster.SlurmExecutor.affinity = lambda: -1
    with pytest.raises(UsageError, match="there is no srun here"):
        list(submit(ablation, tmp_path))


def test_sbatch_is_told_what_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    submitit = pytest.importorskip("submitit")
    monkeypatch.setattr(submitit.SlurmExecutor, "affinity", classmethod(lambda cls: 2))
    asked = parse_cluster_options(["time=2:00:00", "gres=gpu:1", "cpus-per-task=4", "job-name=mine"], "slurm")
    executor = submission._open_executor(submitit, tmp_path, "slurm", asked, 5)
    text = executor._executor._make_submission_file_text("command", "0")
    lines = set(text.splitlines())
    expected = {"time=120", "gres=gpu:1", "cpus-per-task=4", "job-name=mine", "signal=USR2@90"}
    assert {f"#SBATCH --{each}" for each in expected} <= lines
    (srun,) = (line for line in lines if line.startswith("srun"))
    assert "--cpus-per-task=4" in srun
    assert executor._executor.parameters["array_parallelism"] == 5


SBATCH = f"""#!{sys.executable} -S
import os, re, subprocess, sys
first, last = re.search(r"#SBATCH --array=(\\d+)-(\\d+)%1\\n", open(sys.argv[1]).read()).groups()
for place in range(int(first), int(last) + 1):
    variables = {{"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": str(place), "SLURM_JOB_ID": str(8 + place)}}
    done = f"bash {{sys.argv[1]}}; echo '7_{{place}}|COMPLETED|a' >> {{os.path.dirname(sys.argv[0])}}/done"
    with open(f"{{sys.argv[1]}}.out", "ab") as output:
        subprocess.Popen(["bash", "-c", done], env={{**os.environ, **variables}}, stdout=output, stderr=output)
print("Submitted batch job 7")
"""
PROGRAMS = {
    "sbatch": SBATCH,
    "srun": f"""#!/bin/sh
while [ "$1" != {sys.executable} ]; do shift; done
exec "$@"
""",
    "sacct": """#!/bin/sh
echo 'JobID|State|NodeList'
cat "$(dirname "$0")/done" 2>/dev/null || true
""",
}


@pytest.mark.profile("ci")
@pytest.mark.skipif(os.name != "posix", reason="there is no Slurm for Windows")
def test_jobs_of_slurm_train_and_are_collected(ablation: Ablation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Slurm's own programs are played: sbatch starts what it is given at once."""
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", f"{tmp_path / 'programs'}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "programs").mkdir()
    for name, program in PROGRAMS.items():
        (tmp_path / "programs" / name).write_text(program)
        (tmp_path / "programs" / name).chmod(0o755)
    monkeypatch.setattr(submission, "POLL", 0.05)
    said: list[str] = []
    news = [
        each
        for each in submit(ablation, tmp_path / "a", most_at_once=1, say=said.append)
        if not isinstance(each, Running)
    ]
    assert said == ["2 runs submitted to slurm: 1 job, 7"]
    assert [type(each) for each in news] == [Finished, Finished], news
    assert {row["cell"] for row in read_rows(tmp_path / "a")} == {"tied=on", "tied=off"}
