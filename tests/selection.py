"""Which of the tests `pytest` alone runs, without a profile that looks harder."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

CASES = 3  # of each test


class Named(Protocol):
    """What has a name as pytest gives tests: `tests/test_a.py::test_b[case]`."""

    @property
    def nodeid(self) -> str:
        """Its name."""
        ...


Test = TypeVar("Test", bound=Named)


def some_cases(tests: Iterable[Test]) -> list[Test]:
    """Return at most CASES cases of each test, from the first to the last in even steps, in the order given."""
    cases: dict[str, list[Test]] = {}
    for test in tests:
        cases.setdefault(test.nodeid.partition("[")[0], []).append(test)
    return [of[i] for of in cases.values() for i in _spread(len(of))]


def _spread(count: int) -> list[int]:
    """Return at most CASES of the numbers below `count`, the first and the last among them."""
    if count <= CASES:
        return list(range(count))
    return [i * (count - 1) // (CASES - 1) for i in range(CASES)]
