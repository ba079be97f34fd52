"""Which of the tests `pytest` alone runs, without a profile that looks harder, and which expressions for marks ask for
those on a GPU."""

from __future__ import annotations

import re
from collections.abc import Iterable

CASES = 3  # of each test


def some_cases(names: Iterable[str]) -> set[str]:
    """Return at most CASES cases of each test, from the first to the last in even steps.

    Names are those that pytest gives them: `tests/test_a.py::test_b[case]`.
    """
    cases: dict[str, list[str]] = {}
    for name in names:
        cases.setdefault(name.partition("[")[0], []).append(name)
    return {of[i] for of in cases.values() for i in _spread(len(of))}


def _spread(count: int) -> list[int]:
    """Return at most CASES of the numbers below `count`, the first and the last among them."""
    if count <= CASES:
        return list(range(count))
    return [i * (count - 1) // (CASES - 1) for i in range(CASES)]


def asks_for_gpu(marks: str) -> bool:
    """Return whether an expression for pytest's option `-m` names the mark `gpu`, and not to leave it out."""
    return re.search(r"(?<!not )\bgpu\b", marks) is not None
