"""What `pytest` alone runs, and who sees a GPU."""

from __future__ import annotations

import os

import pytest

from tests.selection import asks_for_gpu, some_cases


@pytest.mark.parametrize(
    ("count", "kept"), [(1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (4, [0, 1, 3]), (7, [0, 3, 6]), (100, [0, 49, 99])]
)
def test_of_many_cases_the_first_the_last_and_one_between_are_run(count: int, kept: list[int]):
    cases = [f"tests/test_a.py::test_b[{i}]" for i in range(count)]
    assert some_cases(cases) == {cases[i] for i in kept}


def test_cases_are_counted_for_each_test_by_itself_whatever_stands_in_brackets():
    names = ["a.py::one", "a.py::two[x]", "a.py::two[x[1]]", "b.py::two[x]", "b.py::Kind::two"]
    assert some_cases(names) == set(names)


@pytest.mark.parametrize(
    ("marks", "asks"),
    [
        ("gpu", True),
        ("gpu and not profile", True),
        ("not gpu", False),
        ("", False),
        ("upstream", False),
        ("gpus", False),
    ],
)
def test_only_an_expression_that_names_the_mark_asks_for_a_gpu(marks: str, asks: bool):
    assert asks_for_gpu(marks) is asks


def test_a_test_without_the_mark_sees_no_gpu():
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "-1"
