"""The interface of a task: problems for a model, each with a check of its answer by code.

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
    """A `question`: a conversation that ends with the user's question. `answer` is a correct answer, for display.

    `is_solved_by` checks the text of a model's answer, without its tool calls. With `choices` the model does not
    generate: the likeliest choice is its answer.
    """

    question: Conversation
    answer: str
    is_solved_by: Callable[[str], bool]
    choices: tuple[str, ...] = ()


class Task(Protocol):
    """A source of problems: its `name` in commands, a line `about` it, and the `chance` of guessing right."""

    name: str
    about: str
    chance: float

    def problems(self, count: int, seed: int) -> Iterator[Problem]:
        """Yield at most `count` problems; the same for the same seed."""
        ...


@runtime_checkable
class PracticeTask(Task, Protocol):
    """A task that a model can also learn by trying (`tgc train --objective grpo`)."""

    def practice(self, count: int, seed: int) -> Iterator[Problem]:
        """Yield `count` problems to train on, the same for the same seed; `problems` yields none of them."""
        ...
