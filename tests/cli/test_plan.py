"""`tgc plan` as a person meets it."""

from __future__ import annotations

import functools
import io
import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Tgc
from tinygrad_chat.backend.host_threads import count_cores
from tinygrad_chat.planning import fit, plan
from tinygrad_chat.planning.measurement import measure
from tinygrad_chat.text.standard_input import keep_standard_input

TINY = (
    "--data",
    "text.txt",
    "--layers",
    "1",
    "--heads",
    "2",
    "--width",
    "8",
    "--context",
    "8",
    "--steps",
    "6",
    "--batch-size",
    "4",
    "--kernels",
    "numpy",  # which are there at once: each measurement is a process of its own
)


@pytest.fixture(autouse=True)
def single_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure no longer than it takes."""
    monkeypatch.setattr(plan, "measure", functools.partial(measure, seconds=0.0))
    monkeypatch.setattr(fit, "ENOUGH_SECONDS", 0.0)


@pytest.fixture(autouse=True)
def short_text(tgc: Tgc) -> None:
    """Put a text that is soon read into the current folder."""
    Path("text.txt").write_text("some text of one's own " * 40)


@pytest.mark.profile("ci")
def test_a_plan_is_a_table_and_a_bar_for_each_part_of_the_time(tgc: Tgc):
    code, out, err = tgc("plan", *TINY)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[:7]] == [
        *("parameters", "steps", "tokens", "compute", "memory", "speed", "time")
    ]
    assert "6 of 4 windows, context 8" in lines[1]
    assert lines[2].split() == ["tokens", "192"]
    bars = [line for line in lines if "%" in line]
    assert [line[:14].strip() for line in bars] == [
        *("training", "evaluations", "checkpoints", "start-up", "between steps")
    ]
    shares = [int(re.search(r"(\d+)%", line)[1]) for line in bars]  # pyright: ignore[reportOptionalSubscript]
    assert 97 <= sum(shares) <= 103
    assert lines[-2].startswith("measured: 1 step of ")
    assert lines[-1] == "with so few steps, the time is a rough estimate"
    assert list(Path().iterdir()) == [Path("text.txt")]


@pytest.mark.profile("ci")
def test_json_stands_alone_on_stdout_and_agrees_with_the_run(tgc: Tgc):
    code, out, err = tgc("plan", *TINY, "--json")
    assert (code, err) == (0, "")
    planned = json.loads(out)
    assert sorted(shlex.split(planned["command"])) == sorted(["tgc", "train", *TINY])
    trained = json.loads(tgc("train", *TINY, "--json")[1])
    assert (planned["parameters"], planned["steps"]) == (trained["parameters"], trained["step"])
    assert planned["seconds"]["total"] > planned["seconds"]["training"] > 0


@pytest.mark.profile("ci")
def test_fit_ends_with_a_command_that_trains(tgc: Tgc):
    code, out, _ = tgc("plan", *TINY, "--no-tied", "--fit", "--memory", "1")
    assert code == 0
    assert "fits as it is: micro-batches of 4 windows" in out
    command = shlex.split(out.splitlines()[-1])
    assert command[:2] == ["tgc", "train"]
    assert command[command.index("--grad-accumulation") + 1] == "1"
    assert "--no-tied" in command
    assert tgc(*command[1:])[0] == 0


@pytest.mark.profile("ci")
def test_the_command_repeats_data_that_was_repeated(tgc: Tgc):
    Path("more text.txt").write_text("more text " * 90)
    given = [*TINY, "--data", "more text.txt"]
    command = shlex.split(json.loads(tgc("plan", *given, "--json")[1])["command"])
    assert sorted(command) == sorted(["tgc", "train", *given])


@pytest.mark.profile("ci")
def test_the_command_names_the_file_that_standard_input_was_kept_in(tgc: Tgc, monkeypatch: pytest.MonkeyPatch):
    keep_standard_input.cache_clear()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"text from a pipe " * 40)))
    given = ["-" if word == "text.txt" else word for word in TINY]
    command = shlex.split(json.loads(tgc("plan", *given, "--json")[1])["command"])
    assert Path(command[command.index("--data") + 1]).read_bytes() == b"text from a pipe " * 40


@pytest.mark.profile("ci")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--ranks 1000", f"--ranks: expected at most the {count_cores()} cores of this machine"),
        ("--fit --ranks 2", "--fit: chooses for one process; leave out --ranks"),
        ("--memory 3", "--memory: limits what --fit may use; add --fit"),
        ("--fit --memory 0", "--memory: expected more than 0 GiB, received 0"),
        ("--fit --memory nan", "--memory: expected more than 0 GiB, received nan"),
        ("--fit --accumulate 2", "--grad-accumulation: is chosen by --fit; leave one of the two out"),
        (
            "--fit --memory 0.001",
            "--fit: expected at most 0.001 GiB for a step of one window of --context 64, but",
        ),
        ("--width 1000000", "choose a smaller --width, --layers or --context"),
        ("--data nowhere.txt", "--data nowhere.txt: no such file or folder"),
        ("--mode scalar --width 512 --layers 9 --context 64", "minutes; choose smaller ones, or add --yes to continue"),
        ("--accumulate 5", "--grad-accumulation: expected a divisor of --batch-size 12, received 5"),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_exit_code_2(tgc: Tgc, options: str, message: str):
    code, out, err = tgc("plan", "--data", "text.txt", *options.split())
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("tgc: ")
    assert err.count("\n") == 1


def test_train_refuses_a_model_larger_than_the_machine_in_one_line(tgc: Tgc):
    code, out, err = tgc("train", "--width", "1000000")
    assert (code, out) == (2, "")
    assert re.fullmatch(r"tgc: --width 1000000 --layers 4 .* choose a smaller --width, --layers or --context\n", err)


@pytest.mark.profile("ci")
def test_what_lies_in_the_current_folder_is_not_imported_by_the_process_that_measures(tgc: Tgc):
    Path("random.py").write_text("raise SystemExit('imported from the current folder')")
    code, out, err = tgc("plan", *TINY, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["steps"] == 6


@pytest.mark.profile("ci")
@pytest.mark.skipif(count_cores() < 2, reason="a plan is measured on as many cores as ranks")
def test_a_plan_of_two_ranks_is_measured_by_two_ranks(tgc: Tgc):
    pytest.importorskip("mpi4py", reason="needs the extra mpi")
    code, out, err = tgc("plan", *TINY, "--ranks", "2")
    assert (code, err) == (0, "")
    assert "at its peak, in each of 2 ranks" in out
    code, out, _ = tgc("plan", *TINY, "--ranks", "2", "--json")
    answer = json.loads(out)
    assert answer["measurement"]["ranks"] == 2
    assert answer["command"].endswith("--steps 6 --kernels numpy --ranks 2")
