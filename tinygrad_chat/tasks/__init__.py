"""Evaluation tasks: problems for a model, and checks of its answers.

task.py             Problem and Task: the interface of a task
recall.py           facts about Python, made-up names to refuse, and follow-up questions
tutor.py            sums, units and words
registry.py         the tasks by name, and tasks in a user's file
multiple_choice.py  which of four sentences says what a function does
programs.py         functions to complete, which hidden checks run
running.py          run an untrusted program in a subprocess
"""

from tinygrad_chat.tasks.registry import TASKS, default_tasks, open_task
from tinygrad_chat.tasks.task import PracticeTask, Problem, Task

__all__ = ["TASKS", "PracticeTask", "Problem", "Task", "default_tasks", "open_task"]
