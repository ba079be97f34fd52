"""The tasks that have a name, and how one is opened: its module is imported when it is asked for, and not before."""

from __future__ import annotations

import importlib

from tinygrad_chat.errors import UsageError
from tinygrad_chat.tasks.task import Task

TASKS: dict[str, str] = {
    # what the model was told about Python and itself
    # sums and words, whose answers code checks
    # the model chooses, or writes a program
}
"""Each task's name, and the class that makes it as `module:Class`; the order is that of tables."""


def task_called(name: str) -> Task:
    """Return the task of that name. Raises UsageError where there is none."""
    if name not in TASKS:
        raise UsageError(f"--task {name}: expected one of {', '.join(TASKS)}, or a FILE.py of your own")
    module, _, made = TASKS[name].partition(":")
    return getattr(importlib.import_module(f"tinygrad_chat.tasks.{module}"), made)()
