"""What a task is: problems that a model is asked, each with a check of its answer by code.

>>> class Echo:
...     name, about, chance = "echo", "repeat a word", 0.0
...
...     def problems(self, count, seed):
...         for number in range(count):
...             word = f"word{seed + number}"
...             yield Problem(Conversation.of(f"Say {word}."), word, lambda answer, word=word: answer.strip() == word)
>>> next(Echo().problems(1, seed=3)).is_solved_by(" word3 ")
True
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from tinygrad_chat.text.conversations import Conversation


@dataclass(frozen=True)
class Problem:
    """A `question`, which the user asks last in a conversation; `answer` is a right one, for people to read.

    `is_solved_by` checks the text of another's answer, without calls of tools. With `choices` the model does not write:
    the likeliest of them is its answer.
    """

    question: Conversation
    answer: str
    is_solved_by: Callable[[str], bool]
    choices: tuple[str, ...] = ()


class Task(Protocol):
    """A source of problems: `name` in commands, `about` in a line for people, `chance` of solving one by guessing."""

    name: str
    about: str
    chance: float

    def problems(self, count: int, seed: int) -> Iterator[Problem]:
        """Yield at most `count` problems; the same ones for the same seed."""
        ...


@runtime_checkable
class PracticeTask(Task, Protocol):
    """A task that a model can also learn by trying (`tgc train --objective grpo`)."""

    def practice(self, count: int, seed: int) -> Iterator[Problem]:
        """Yield `count` problems to learn from, the same ones for the same seed; `problems` yields none of them."""
        ...
