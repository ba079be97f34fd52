"""The folder of an ablation, which one process locks at a time.

ablations/bigram-tensor-norm-tied/
  ablation.json   the settings of each cell
  results.jsonl   one finished run per line; a second start trains those that are missing
  runs/           the run of each cell and seed, complete
  submitted.json  the cluster job of each submitted run, until its result is here; submitted/ is for these jobs' files
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict, cast

from tinygrad_chat.config.record import from_saved
from tinygrad_chat.errors import FormatError, UsageError
from tinygrad_chat.experiments.ablation import Ablation, label
from tinygrad_chat.experiments.planned import PlannedRun, Result, is_whole, read_result
from tinygrad_chat.files import exclusive_lock, explained, folder_is_there, is_there, read_plain, write_atomic
from tinygrad_chat.formatting import count
from tinygrad_chat.schema import Count, parse_lines, read_json

LARGEST_RESULTS = 64 << 20  # bytes
SUBMITTED = "submitted.json"


class Row(Result):
    """A line of results.jsonl: a finished run; the line also has the choices of its cell."""

    cell: str
    seed: Count


class Claim(TypedDict):
    """The content of ablation.json: the settings of each cell."""

    settings: dict[str, dict[str, Any]]


@contextmanager
def held(ablation: Ablation, folder: Path, *, collecting: str = "") -> Iterator[list[PlannedRun]]:
    """Lock the ablation's folder, and provide its unfinished runs.

    Raises UsageError if `folder` holds another ablation, another process is working there, or runs were submitted to a
    cluster that this call is not `collecting` from.
    """
    planned = [  # all configurations are resolved first: errors come before any training
        PlannedRun(choices, ablation.config(choices, seed), _path(folder, f"{label(choices)},seed={seed}"))
        for choices, seed in ablation.runs()
    ]
    _claim(ablation, folder)
    with exclusive_lock(folder):
        done = {(row["cell"], row["seed"]) for row in read_rows(folder)}
        left = [run for run in planned if (label(run.choices), run.config.run.seed) not in done]
        left = [run for run in left if add_result(folder, run) is None]
        submitted = read_submitted(folder)
        out = [run for run in left if run.name in submitted["jobs"]]
        if out and submitted["cluster"] != collecting:
            raise UsageError(
                f"{folder}: {count(len(out), 'run')} already submitted to {submitted['cluster']}; collect the results "
                f"with --submit {submitted['cluster']}"
            )
        yield left


def _path(folder: Path, name: str) -> Path:
    return folder / "runs" / name.replace("/", "_")


def _claim(ablation: Ablation, folder: Path) -> None:
    """Record what ablation the folder is for, or check that it is this one."""
    settings = {label(choices): ablation.config(choices, 1).used_settings() for choices in ablation.cells()}
    path = folder / "ablation.json"
    with explained(path, "read"):
        saved = read_json(path, Claim, most=LARGEST_RESULTS)["settings"] if is_there(path) else settings
    before = {cell: from_saved(each, source=str(path)).used_settings() for cell, each in saved.items()}
    if before != settings:
        names = {"vary"}
        if before.keys() == settings.keys():
            pairs = [
                (before[cell].get(name), name, value) for cell in settings for name, value in settings[cell].items()
            ]
            names = {name for had, name, value in pairs if had != value} or names
        raise UsageError(
            f"{folder}: holds an ablation with other settings ({', '.join(sorted(names))}); "
            "choose another folder with --out"
        )
    with explained(folder):
        folder_is_there(folder / "runs")
        (folder / "runs").mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps({"settings": settings}, indent=1).encode())


def add_result(folder: Path, run: PlannedRun) -> Row | None:
    """Add the result of a run, and return its row; None if it is not finished.

    Raises UsageError if its text differs from that of earlier rows.
    """
    result = read_result(run.path)
    if result is None:
        return None
    row = cast(Row, {"cell": label(run.choices), **run.choices, "seed": run.config.run.seed, **result})
    rows = [*read_rows(folder), row]
    if "data" not in run.choices and rows[0]["data_sha256"] != row["data_sha256"]:
        raise UsageError(
            f"--data {run.config.data.name}: has changed since the ablation began; start a new one in another folder"
        )
    write_atomic(folder / "results.jsonl", "".join(json.dumps(line) + "\n" for line in rows).encode())
    return row


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the finished runs of the ablation at `folder`, in the order in which they ended.

    An invalid line, perhaps cut short by a crash, is left out, as if its run were not finished.
    """
    path = folder / "results.jsonl"
    with explained(path, "read"):
        lines = read_plain(path, most=LARGEST_RESULTS).splitlines() if is_there(path) else []
    rows = [row for _, row in parse_lines(lines, Row, source=str(path)) if not isinstance(row, FormatError)]
    return [{**row} for row in rows if is_whole(row)]


class Submitted(TypedDict):
    """The content of submitted.json: where the runs were submitted, and each one's job number."""

    cluster: str
    jobs: dict[str, str]


def read_submitted(folder: Path) -> Submitted:
    """Return which runs were submitted. Raises StorageError or FormatError if that cannot be read."""
    path = folder / SUBMITTED
    with explained(path, "read"):
        return read_json(path, Submitted) if is_there(path) else {"cluster": "", "jobs": {}}


def write_submitted(folder: Path, cluster: str, jobs: Mapping[str, str]) -> None:
    """Record which jobs are still to be collected."""
    write_atomic(folder / SUBMITTED, json.dumps({"cluster": cluster, "jobs": jobs}, indent=1).encode())
