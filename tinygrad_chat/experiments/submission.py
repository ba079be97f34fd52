"""The runs of an ablation as jobs on a cluster, by submitit, the extra `slurm`.

submitted.json in the ablation's folder maps each run to its job, so the same command, given again at any time, collects
the results. They come from the runs' folders: nothing that submitit has pickled is ever read here.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.errors import BackendError, UsageError
from tinygrad_chat.experiments.ablation import Ablation
from tinygrad_chat.experiments.job import Job, last_words
from tinygrad_chat.experiments.jobs import Failed, Finished, News, Running, Stopped
from tinygrad_chat.experiments.planned import PlannedRun
from tinygrad_chat.experiments.progress import read_progress
from tinygrad_chat.experiments.results import add_result, held, read_submitted, write_submitted
from tinygrad_chat.experiments.shares import read_texts
from tinygrad_chat.files import explained, is_locked
from tinygrad_chat.formatting import as_clause, count, short_list
from tinygrad_chat.text.download import Progress as Reading

CLUSTERS = ("slurm", "local")
"""Where runs may be submitted; local: submitit's own local processes, to try a command."""

MAX_IN_AN_ARRAY = 1000  # Slurm's default limit
MAX_STARTS = 100  # of a run that reaches its time limit: each continues where the previous one stopped
MINUTES_OF_A_WEEK = 7 * 24 * 60  # the time limit of a job on this machine
POLL = 1.0  # seconds between checks on the jobs
SIGNAL_EXIT_BASE = 128  # exit codes above it are 128 + a signal's number
PATIENCE = 120.0  # seconds: soon after a signal, Slurm decides whether to requeue the job
SUCCESS_STATES = ("COMPLETED", "FINISHED")
LONGEST_NUMBER = 10  # digits of a process ID


@dataclass(frozen=True)
class SubmittedRun:
    """The work of a job: train a run in a subprocess, which ends with the job and whose crash is reported."""

    config: TrainingConfig
    path: Path
    confirmed: bool

    def __call__(self) -> None:
        """Train until the run is finished or has failed, or the job must stop."""
        with Job(self.config, self.path, confirmed=self.confirmed) as job:
            code = job.wait()
        if code > SIGNAL_EXIT_BASE:
            time.sleep(PATIENCE)

    def checkpoint(self) -> Any:
        """Return what submitit should resubmit if Slurm preempts the job or its time is up: the same run, which then
        continues."""
        return importlib.import_module("submitit.helpers").DelayedSubmission(self)


def expect_cluster(cluster: str) -> Any:
    """Return submitit. Raises BackendError, naming the extra, if it is missing, and UsageError without Slurm."""
    if cluster not in CLUSTERS:
        raise UsageError(f"--submit: expected one of {', '.join(CLUSTERS)}, received {cluster!r}")
    try:
        submitit = importlib.import_module("submitit")
    except ImportError as error:
        raise BackendError(f"--submit {cluster}: needs submitit, the extra slurm: pip install submitit") from error
    if cluster == "slurm" and submitit.SlurmExecutor.affinity() < 0:
        raise UsageError("--submit slurm: there is no srun here; run the command on a machine of the cluster")
    return submitit


def parse_cluster_options(options: Sequence[str], cluster: str) -> dict[str, str]:
    """Parse `--slurm-option`: options of sbatch by name, as in time=2:00:00.

    Raises UsageError for one without a value, and on Slurm if there is no time limit for a job.
    """
    found = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not (name.strip("-") and equals):
            raise UsageError(f"--slurm-option: expected an option of sbatch, as in partition=gpu, received {option!r}")
        found[name.strip().lstrip("-").replace("-", "_")] = value
    if cluster == "slurm" and "time" not in found:
        raise UsageError("--submit slurm: expected how long a job may take, as in --slurm-option time=2:00:00")
    minutes_of(found.get("time", "1"))
    return found


def minutes_of(time: str) -> int:
    """Convert a time in Slurm's notation to minutes: 90, 90:00 or 1:30:00, or after a number of days, 1-12 or 1-12:30.

    >>> minutes_of("90"), minutes_of("2:00:00"), minutes_of("1-12"), minutes_of("0:30")
    (90, 120, 2160, 1)
    """
    days, dash, rest = time.rpartition("-")
    try:
        parts = [int(part) for part in rest.split(":")]
        day = int(days) if dash else 0
        if not 1 <= len(parts) <= 3 or min(day, *parts) < 0:
            raise ValueError
    except ValueError:
        raise UsageError(f"--slurm-option time: expected minutes or hours:minutes:seconds, received {time!r}") from None
    if dash or len(parts) == 3:
        hours, minutes, seconds = [*parts, 0, 0][:3]
    else:
        hours, minutes, seconds = 0, *[*parts, 0][:2]
    return max(1, (day * 24 + hours) * 60 + minutes + (seconds > 0))


def run_submitted(
    ablation: Ablation,
    folder: Path,
    *,
    cluster: str,
    options: Mapping[str, str],
    most_at_once: int | None = None,
    detach: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    confirmed: bool = False,
    say: Callable[[str], None] = lambda line: None,
    progress: Reading | None = None,
) -> Generator[News, None, None]:
    """Submit all runs that are neither finished nor submitted, to run `most_at_once` at a time, and wait for them.

    Yields news of them. Jobs continue when this process ends; with `detach` it checks them only once. The same call
    collects their results later. `say` reports the jobs, `progress` the reading of a text. Raises UsageError if the
    cluster refuses them, and what `held` raises.
    """
    submitit = expect_cluster(cluster)
    with held(ablation, folder, collecting=cluster) as unfinished:
        executor = _open_executor(submitit, folder, cluster, options, most_at_once)
        known = read_submitted(folder)["jobs"]
        left = {run.name: run for run in unfinished}
        jobs = {
            name: _known_job(submitit, executor.folder, cluster, known[name]) for name in left.keys() & known.keys()
        }
        new = [run for run in unfinished if run.name not in jobs]
        read_texts(new, progress=progress)  # tokenized here once, instead of by each job
        for part in (new[start : start + MAX_IN_AN_ARRAY] for start in range(0, len(new), MAX_IN_AN_ARRAY)):
            added = _submit(executor, part, confirmed)
            jobs |= {run.name: job for run, job in zip(part, added, strict=True)}
            write_submitted(folder, cluster, {name: job.job_id for name, job in jobs.items()})
            numbers = list(dict.fromkeys(job.job_id.partition("_")[0] for job in added))
            say(
                f"{count(len(part), 'run')} submitted to {cluster}: {count(len(numbers), 'job')}, {short_list(numbers)}"
            )
        while jobs:
            for name, job in list(jobs.items()):
                news = _news_of(folder, left[name], job, cluster)
                if isinstance(news, Finished | Failed):
                    del jobs[name]
                    write_submitted(folder, cluster, {name: job.job_id for name, job in jobs.items()})
                if news is not None:
                    yield news
            if detach or should_stop():
                yield from (Stopped(left[name]) for name in jobs)
                return
            if jobs:
                time.sleep(POLL)


def _open_executor(
    submitit: Any, folder: Path, cluster: str, options: Mapping[str, str], most_at_once: int | None
) -> Any:
    executor = submitit.AutoExecutor(folder / "submitted", cluster=cluster, slurm_max_num_timeout=MAX_STARTS)
    cpus = options.get("cpus_per_task")
    executor.update_parameters(
        name="tgc-ablate",
        timeout_min=minutes_of(options["time"]) if "time" in options else MINUTES_OF_A_WEEK,
        slurm_array_parallelism=most_at_once or MAX_IN_AN_ARRAY,
        slurm_srun_args=[f"--cpus-per-task={cpus}"] if cpus else [],  # srun does not inherit it from sbatch
        slurm_additional_parameters={name: value for name, value in options.items() if name != "time"},
    )
    return executor


def _submit(executor: Any, runs: Sequence[PlannedRun], confirmed: bool) -> list[Any]:
    try:
        return executor.submit_array([SubmittedRun(run.config, run.path, confirmed) for run in runs])
    except (RuntimeError, OSError) as error:  # the kinds of submitit's errors, whatever sbatch says
        raise UsageError(f"--submit: the jobs were refused: {as_clause(str(error))}") from error


def _known_job(submitit: Any, folder: Path, cluster: str, number: str) -> Any:
    """Return a job that an earlier process submitted."""
    return {"slurm": submitit.SlurmJob, "local": submitit.LocalJob}[cluster](folder=folder, job_id=number)


def _news_of(folder: Path, run: PlannedRun, job: Any, cluster: str) -> News | None:
    over = job.done() and not _is_at_work(run, job, cluster)  # checked before the result, which precedes the job's end
    row = add_result(folder, run)
    if row is not None:
        return Finished(run, row)
    if over:
        state, words = job.state, last_words(run.path)
        said = ": ".join(filter(None, ["" if state in SUCCESS_STATES else state, words]))
        return Failed(run, said or f"no output; see {job.paths.stderr}")
    progress = read_progress(run.config, run.path)
    return None if progress is None else Running(run, progress)


def _is_at_work(run: PlannedRun, job: Any, cluster: str) -> bool:
    """Return whether a job that submitit considers done is still running: of local jobs it only sees its own
    children."""
    with explained(run.path, "read"):
        return is_locked(run.path) or (cluster == "local" and _is_alive(job.job_id))


def _is_alive(number: str) -> bool:
    """Return whether a process has that ID, which comes from a file and is not trusted."""
    return number.isdecimal() and len(number) < LONGEST_NUMBER and psutil.pid_exists(int(number))
