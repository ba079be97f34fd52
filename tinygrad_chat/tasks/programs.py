"""Programs for a model to write, in the form of HumanEval (Chen et al., arXiv:2107.03374), easy enough for tiny models.

A function's head and docstring are given, the model writes the body, and hidden checks decide whether it is correct.
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from tinygrad_chat.tasks.running import passes
from tinygrad_chat.tasks.task import Problem
from tinygrad_chat.text.conversations import Conversation

ASKED = "Complete this Python function:\n"


@dataclass(frozen=True)
class Exercise:
    """A function's `head` with its docstring, a correct `body`, and `checks` of it."""

    head: str
    body: str
    checks: tuple[str, ...]


def _exercise(signature: str, purpose: str, expression: str, *checks: str) -> Exercise:
    head = f'def {signature}:\n    """{purpose}"""\n'
    return Exercise(head, f"    return {expression}\n", checks)


EXERCISES = (
    _exercise("add(a, b)", "Return the sum of a and b.", "a + b", "add(2, 3) == 5", "add(-1, 1) == 0"),
    _exercise("double(n)", "Return twice n.", "2 * n", "double(4) == 8", "double(0) == 0"),
    _exercise("is_even(n)", "Return whether n is even.", "n % 2 == 0", "is_even(4)", "not is_even(7)"),
    _exercise("square(n)", "Return the square of n.", "n * n", "square(5) == 25", "square(-3) == 9"),
    _exercise("largest(numbers)", "Return the largest number.", "max(numbers)", "largest([3, 9, 2]) == 9"),
    _exercise("first(items)", "Return the first item.", "items[0]", "first([4, 5]) == 4", "first('ab') == 'a'"),
    _exercise("last(items)", "Return the last item.", "items[-1]", "last([4, 5]) == 5", "last('ab') == 'b'"),
    _exercise("total(numbers)", "Return the sum of the numbers.", "sum(numbers)", "total([1, 2, 3]) == 6"),
    _exercise("count(items)", "Return the number of items.", "len(items)", "count([1, 1]) == 2", "count('') == 0"),
    _exercise("backwards(text)", "Return the text reversed.", "text[::-1]", "backwards('abc') == 'cba'"),
    _exercise("shout(text)", "Return the text in upper case.", "text.upper()", "shout('hi') == 'HI'"),
    _exercise("words(text)", "Return a list of the words in the text.", "text.split()", "words('a b') == ['a', 'b']"),
    _exercise("in_order(items)", "Return a sorted list of the items.", "sorted(items)", "in_order([2, 1]) == [1, 2]"),
    _exercise(
        "mean(numbers)", "Return the mean of the numbers.", "sum(numbers) / len(numbers)", "mean([1, 2, 6]) == 3"
    ),
    _exercise(
        "vowels(text)",
        "Return the number of vowels in the text.",
        "sum(letter in 'aeiou' for letter in text)",
        "vowels('banana') == 3",
        "vowels('sky') == 0",
    ),
    _exercise(
        "is_palindrome(text)",
        "Return whether the text reads the same backwards.",
        "text == text[::-1]",
        "is_palindrome('level')",
        "not is_palindrome('lever')",
    ),
)


class Programs:
    """Functions to complete; `runs_programs` says that checking an answer runs it."""

    name = "programs"
    about = "complete a Python function, which hidden checks then run"
    chance = 0.0
    runs_programs = True

    def problems(self, count: int, seed: int) -> Iterator[Problem]:
        """Yield at most as many problems as there are exercises, shuffled by the seed."""
        for exercise in random.Random(seed).sample(EXERCISES, min(count, len(EXERCISES))):
            yield Problem(
                Conversation.of(ASKED + exercise.head), exercise.body, functools.partial(is_solved_by, exercise)
            )


def is_solved_by(exercise: Exercise, answer: str) -> bool:
    """Run an answer (a body or a whole function, fenced or not), and return whether it passes the checks."""
    checks = "\n".join(f"assert {check}" for check in exercise.checks)
    return passes(program_of(exercise, answer), checks)


def program_of(exercise: Exercise, answer: str) -> str:
    """Return the program of an answer: the exercise's head is put before a body without one.

    >>> print(program_of(EXERCISES[1], "return n + n"))
    def double(n):
        \"\"\"Return twice n.\"\"\"
        return n + n
    """
    fenced = re.search(r"```(?:python|py)?\n(.*?)(?:```|\Z)", answer, re.DOTALL)
    code = (fenced[1] if fenced else answer).strip("\n")
    if re.match(r"(def|import|from) ", code):
        return code
    lines = code.splitlines()
    indented = lines if lines and lines[0][:1] in " \t" else [f"    {line}" for line in lines]
    return exercise.head + "\n".join(indented)
