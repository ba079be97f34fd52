"""Tasks by name, and in files of a user's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tinygrad_chat.errors import UsageError
from tinygrad_chat.tasks import TASKS, default_tasks, open_task
from tinygrad_chat.text.conversations import ChatTemplate
from tinygrad_chat.text.tokenizers import BPETokenizer

OWN = """
from tinygrad_chat.tasks import Problem
from tinygrad_chat.text.conversations import Conversation

class Own:
    name, about, chance = "own", "say yes", 0.5

    def problems(self, count, seed):
        yield Problem(Conversation.of("Yes?"), "yes", lambda said: "yes" in said)
"""


@pytest.mark.parametrize("name", TASKS)
def test_each_task_asks_questions_whose_answers_pass_and_others_do_not(name: str):
    task = open_task(name)
    assert task.name == name
    assert task.about
    assert 0 <= task.chance < 1
    problems = list(task.problems(6, seed=3))
    assert 0 < len(problems) <= 6
    template = ChatTemplate(BPETokenizer.from_merges([]))
    for problem in problems:
        template.render_prompt(problem.question)  # a user asks last
        assert problem.is_solved_by(problem.answer)
        assert not problem.is_solved_by("~~~")
        assert not problem.choices or problem.answer in problem.choices


@pytest.mark.parametrize("name", TASKS)
def test_the_seed_decides_what_is_asked(name: str):
    task = open_task(name)
    first, again, other = ([each.question for each in task.problems(6, seed)] for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_programs_are_not_run_by_default():
    assert not [task.name for task in default_tasks() if getattr(task, "runs_programs", False)]


def test_names_are_known_before_any_task_is_imported():
    program = "import sys, tinygrad_chat.tasks; print(*[name for name in sys.modules if 'embedded' in name])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""


def test_a_file_of_ones_own_holds_a_task(tmp_path: Path):
    file = tmp_path / "own.py"
    file.write_text(OWN)
    assert open_task(str(file)).name == "own"
    file.write_text(OWN + OWN.replace("Own", "Another").replace('"own"', '"another"'))
    assert open_task(f"{file}:Another").name == "another"
    with pytest.raises(UsageError, match=r"own\.py: expected one class with name, .*, received Own, Another"):
        open_task(str(file))


@pytest.mark.parametrize(
    ("content", "class_name", "message"),
    [
        (None, "", "FileNotFoundError"),
        ("1 +", "", "SyntaxError"),
        ("import nowhere_to_be_found", "", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("", "", "expected one class with name, about, chance, problems, received none"),
        ("a = 1", ":a", "expected a class with name, about, chance, problems, received another thing"),
        ("", ":Nothing", "AttributeError"),
        (OWN + "    def __init__(self): raise ValueError('two\\nlines')", "", "ValueError: two lines"),
    ],
)
def test_a_file_without_a_task_is_one_line(tmp_path: Path, content: str | None, class_name: str, message: str):
    file = tmp_path / "own.py"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UsageError) as raised:
        open_task(f"{file}{class_name}")
    assert str(raised.value).startswith(f"--task {file}{class_name}: ")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_name_that_is_none_is_told_the_others():
    with pytest.raises(UsageError, match=r"--task sum: expected one of .*programs.*, or a FILE\.py of your own"):
        open_task("sum")
