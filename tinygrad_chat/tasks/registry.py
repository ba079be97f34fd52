"""The named tasks, and tasks in a user's file. A task's module is imported when the task is opened."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from tinygrad_chat.errors import TinygradChatError, UsageError
from tinygrad_chat.files import user_path
from tinygrad_chat.formatting import one_line, short_repr
from tinygrad_chat.tasks.task import PracticeTask, Problem, Task

TASKS: dict[str, str] = {
    # what the model was told about Python and itself
    "python": "recall:Documentation",
    "reverse": "recall:Reverse",
    "known": "recall:Known",
    "unknown": "recall:Unknown",
    "turns": "recall:Turns",
    # sums and words, whose answers code checks
    "sums": "tutor:Sums",
    "units": "tutor:Units",
    "spelling": "tutor:Words",
    "letters": "tutor:Letters",
    # the model chooses, or writes a program
    "sentences": "multiple_choice:Sentences",
    "choices": "multiple_choice:Choices",
    "programs": "programs:Programs",
}
"""Each task's name and its class, as `module:Class`, in the order of tables."""

NOT_BY_DEFAULT = ("choices", "programs")
"""Tasks that run only when named: our models are not trained to choose letters, and `programs` runs code."""

MEMBERS = ("name", "about", "chance", "problems")


def default_tasks() -> list[Task]:
    """Return the tasks for a model that can chat if none is named."""
    return [open_task(name) for name in TASKS if name not in NOT_BY_DEFAULT]


def open_task(name: str) -> Task:
    """Return a task by its name, by a `FILE.py` that defines one, or as a class `FILE.py:Class`. The file is executed.

    Raises UsageError if there is none.
    """
    if name in TASKS:
        module, _, made = TASKS[name].partition(":")
        return getattr(importlib.import_module(f"tinygrad_chat.tasks.{module}"), made)()
    file, _, made = name.partition(".py:")
    if not made and not name.endswith(".py"):
        raise UsageError(f"--task {name}: expected one of {', '.join(TASKS)}, or a FILE.py of your own")
    path = user_path(f"{file}.py" if made else name)
    with running(name):
        module = _module(path)
        found = [getattr(module, made)] if made else [each for each in vars(module).values() if _is_task(each, module)]
    if len(found) != 1:
        known = ", ".join(each.__name__ for each in found) or "none"
        raise UsageError(f"--task {name}: expected one class with {', '.join(MEMBERS)}, received {known}")
    if not _is_task(found[0], module):
        raise UsageError(f"--task {name}: expected a class with {', '.join(MEMBERS)}, received another thing")
    with running(name):
        return found[0]()


def problems_of(task: Task, count: int, seed: int) -> list[Problem]:
    """Return at most `count` problems of a task. Raises UsageError if it yields none, or anything but Problems."""
    if not (isinstance(task.chance, int | float) and 0 <= task.chance < 1):
        raise UsageError(f"--task {task.name}: expected a chance from 0 to below 1, received {short_repr(task.chance)}")
    problems = _taken(task, task.problems, count, seed)
    if not problems:
        raise UsageError(f"--task {task.name}: expected at least one problem, received none")
    return problems


def practice_of(task: PracticeTask, count: int, seed: int) -> list[Problem]:
    """Return `count` problems to train on. Raises UsageError if the task yields fewer, or anything but Problems."""
    problems = _taken(task, task.practice, count, seed)
    if len(problems) < count:
        raise UsageError(f"--task {task.name}: expected {count} problems to practise on, received {len(problems)}")
    return problems


def _taken(task: Task, make: Callable[[int, int], Iterator[Problem]], count: int, seed: int) -> list[Problem]:
    with running(task.name):
        problems = list(itertools.islice(make(count, seed), count))
    for problem in problems:
        if not isinstance(problem, Problem):
            raise UsageError(f"--task {task.name}: expected each to be a Problem, received {short_repr(problem)}")
    return problems


@contextmanager
def running(task: str) -> Iterator[None]:
    """Turn any exception in a task's own code into a UsageError of one line."""
    try:
        yield
    except TinygradChatError:
        raise
    except Exception as error:
        raise UsageError(one_line(f"--task {task}: {type(error).__name__}: {error}")) from error


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"--task {path}: expected a file of Python")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _is_task(thing: Any, module: ModuleType) -> bool:
    """Return whether a thing is a class defined in that module, with all members of a task."""
    own = isinstance(thing, type) and thing.__module__ == module.__name__
    return own and all(hasattr(thing, member) for member in MEMBERS)
