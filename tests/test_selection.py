"""What `pytest` alone runs."""

from __future__ import annotations

import pytest

from tests.selection import some_cases


@pytest.mark.parametrize(
    ("count", "kept"), [(1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (4, [0, 1, 3]), (7, [0, 3, 6]), (100, [0, 49, 99])]
)
def test_of_many_cases_the_first_the_last_and_one_between_are_run(count: int, kept: list[int]):
    cases = [f"tests/test_a.py::test_b[{i}]" for i in range(count)]
    assert some_cases(cases) == {cases[i] for i in kept}


def test_cases_are_counted_for_each_test_by_itself_whatever_stands_in_brackets():
    names = ["a.py::one", "a.py::two[x]", "a.py::two[x[1]]", "b.py::two[x]", "b.py::Kind::two"]
    assert some_cases(names) == set(names)
