"""What a model is asked, and how its answer is checked.

task.py   Problem and Task: what each task offers
"""

from tinygrad_chat.tasks.task import Problem, Task

__all__ = ["Problem", "Task"]
