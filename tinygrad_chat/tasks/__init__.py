"""What a model is asked, and how its answer is checked.

task.py             Problem and Task: what each task offers
recall.py           what it learned of Python, what there is not, and what was said before
tutor.py            sums, units and words
registry.py         the tasks by name, and those in a file of one's own
multiple_choice.py  which of four sentences says what a function does
programs.py         functions to complete, which hidden checks run
running.py          a program of a stranger's in a process of its own
"""

from tinygrad_chat.tasks.registry import TASKS, default_tasks, open_task
from tinygrad_chat.tasks.task import PracticeTask, Problem, Task

__all__ = ["TASKS", "PracticeTask", "Problem", "Task", "default_tasks", "open_task"]
