"""Programs that models write: the checks decide, and what a program may do is limited."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tinygrad_chat.tasks import open_task
from tinygrad_chat.tasks.programs import EXERCISES, Exercise, is_solved_by, program_of
from tinygrad_chat.tasks.running import passes

DOUBLE = next(exercise for exercise in EXERCISES if "double" in exercise.head)


def test_every_exercise_is_solved_by_its_own_body():
    program = "\n".join(exercise.head + exercise.body for exercise in EXERCISES)
    assert passes(program, "\n".join(f"assert {check}" for exercise in EXERCISES for check in exercise.checks))


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.head.split("(")[0])
def test_no_exercise_is_solved_by_a_body_that_does_nothing(exercise: Exercise):
    names: dict[str, object] = {}
    exec(exercise.head + "    return None", names)
    outcomes = []
    for check in exercise.checks:
        try:
            outcomes.append(eval(check, names))
        except TypeError:
            outcomes.append(False)
    assert not all(outcomes)


@pytest.mark.parametrize(
    ("answer", "solved"),
    [
        ("return n + n", True),
        ("    return n * 2\n", True),
        ("def double(n):\n    return n * 2", True),
        ("Here it is:\n```python\ndef double(n):\n    return 2 * n\n```\nDone.", True),
        ("```\nreturn 2 * n", True),
        ("return n", False),
        ("", False),
        ("I don't know.", False),
        ("return 2 * n\0", False),
        ("import sys; sys.exit(0)", False),
        ("import os\nos._exit(0)", False),
    ],
)
def test_an_answer_is_right_if_the_checks_pass(answer: str, solved: bool):
    assert is_solved_by(DOUBLE, answer) == solved


def test_a_body_goes_below_the_head():
    assert program_of(DOUBLE, "m = n\nreturn m") == DOUBLE.head + "    m = n\n    return m"


@pytest.mark.profile("ci")
@pytest.mark.parametrize(
    "program",
    [
        "while True: pass",
        "import time; time.sleep(60)",
    ],
)
def test_a_program_that_takes_too_long_is_ended(program: str):
    assert not passes(program, "", seconds=0.6)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits on memory are Linux's")
def test_a_program_that_takes_too_much_memory_fails():
    assert passes("a = bytes(1 << 20)", "assert len(a) == 1 << 20")
    assert not passes("a = bytes(1 << 30)", "assert len(a) == 1 << 30")


@pytest.mark.parametrize(
    "attempt",
    [
        "open('written', 'w')",
        "import os; os.open('written', os.O_CREAT | os.O_WRONLY)",
        "import os; os.remove('PATH')",
        "import shutil; shutil.rmtree('PATH')",
        "import socket; socket.socket()",
        "import subprocess; subprocess.run(['true'])",
        "import os; os.system('true')",
        "import os; os.fork()",
    ],
)
def test_what_a_program_has_no_use_for_is_refused(attempt: str, tmp_path: Path):
    (tmp_path / "kept").write_text("")
    attempt = attempt.replace("PATH", str(tmp_path / "kept")).replace("; ", "\n    ")
    assert passes(f"try:\n    {attempt}\nexcept PermissionError:\n    refused = True", "assert refused")
    assert (tmp_path / "kept").exists()


def test_a_program_knows_nothing_of_the_user(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECRET", "1")
    checks = ("'SECRET' not in os.environ", "not os.listdir('.')", "sys.flags.isolated")
    assert passes("import os, sys", "\n".join(f"assert {check}" for check in checks))
    assert not passes("import numpy", "")


def test_problems_follow_the_seed():
    task = open_task("programs")
    first, again, other = ([each.answer for each in task.problems(99, seed)] for seed in (1, 1, 2))
    assert first == again != other
    assert sorted(first) == sorted(other)
    assert len(list(task.problems(3, 1))) == 3
