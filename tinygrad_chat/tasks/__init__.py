"""What a model is asked, and how its answer is checked.

task.py       Problem and Task: what each task offers
registry.py   the tasks by name
"""

from tinygrad_chat.tasks.registry import TASKS, task_called
from tinygrad_chat.tasks.task import PracticeTask, Problem, Task

__all__ = ["TASKS", "PracticeTask", "Problem", "Task", "task_called"]
