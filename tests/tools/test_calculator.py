"""The calculator works out what Python would, exactly, and answers whatever it is given in a short line."""

from __future__ import annotations

import math
import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_chat.tools import calculate

SYMBOLS = st.sampled_from([*"0123456789.+-*/%()',\" ", "**", "//", "len", "round", ".count", "[::-1]", "'ab'", "loss"])


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("347*28", "9716"),
        ("0.1+0.2", "0.3"),
        ("1/3", "0.333333"),
        ("-1/3", "-0.333333"),
        ("1/8", "0.125"),
        ("6/2", "3"),
        ("1/1024", "0.0009765625"),  # ends within 12 places
        ("-2**2", "-4"),
        ("2**-1", "0.5"),
        ("2**3**2", "512"),
        ("10-3-2", "5"),
        ("-7//2", "-4"),
        ("-7%3", "2"),
        ("1**9**9", "1"),
        ("5.", "5"),
        (" 2 * ( 3 + .5 ) ", "7"),
        ("round(5/1.609344, 2)", "3.11"),
        ("'strawberry'.count('r')", "3"),
        ('len("it\'s")', "4"),
        ("len('banana')*2", "12"),
        ("'banana'[::-1]", "ananab"),
        ("'banana'[::-1].count('an')", "2"),
        ("'word'", "word"),
    ],
)
def test_expressions_come_to_what_people_expect(expression: str, result: str):
    assert calculate(expression) == result


@pytest.mark.parametrize(
    ("expression", "error"),
    [
        ("", "unexpected end"),
        ("(1", "unexpected end"),
        ("1 2", "unexpected 2"),
        ("1)", "unexpected )"),
        ("'x", "unexpected '"),
        ("'x'.upper()", "unexpected upper"),
        ("import os", "unknown name import"),
        ("\u0661+1", "unexpected \u0661"),
        ("1/0", "division by zero"),
        ("1%0", "division by zero"),
        ("0**-1", "division by zero"),
        ("'a'+1", "a number is expected, not text"),
        ("len(5)", "text is expected, not a number"),
        ("2**0.5", "only whole numbers are exponents"),
        ("round(1, 1000000)", "round takes 0 to 12 places"),
        ("9**9**9", "too large"),
        ("(1/9)**9**9", "too large"),
        ("99999999999**19", "too large"),
        ("9" * 201, "too large"),
        ("1/3/10**9", "too small"),
        ("1" * 501, "too long"),
        ("(" * 200, "too deep"),
        ("-" * 400 + "1", "too deep"),
    ],
)
def test_what_cannot_be_worked_out_is_an_error_in_a_few_words(expression: str, error: str):
    assert calculate(expression) == f"error: {error}"


def test_names_stand_for_facts():
    facts = {"loss": 0.1, "parameters": 1310850, "name": "Ada", "broken": math.nan}
    assert calculate("loss+0.2", facts) == "0.3"
    assert calculate("parameters//1000", facts) == "1310"
    assert calculate("name", facts) == "Ada"
    assert calculate("broken", facts) == "error: nan is no number"
    assert calculate("minutes", facts) == "error: unknown name minutes"


@given(st.text() | st.lists(SYMBOLS).map("".join))
def test_any_text_has_a_short_answer(expression: str):
    assert len(calculate(expression, {"loss": 0.9})) <= 500


@pytest.mark.parametrize("expression", ["7**99**9", "*".join(["1.37**200"] * 50), "+".join(["1/7**99"] * 70)])
def test_what_would_grow_without_bound_ends_at_once(expression: str):
    assert calculate(expression).startswith("error: too")


def sums() -> st.SearchStrategy[str]:
    numbers = st.integers(0, 9999).map(str) | st.decimals(0, 99, places=2).map(str)
    return st.recursive(
        numbers,
        lambda inner: st.one_of(
            st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//", "%"]), inner).map(" ".join),
            st.tuples(inner, st.integers(-3, 3)).map(lambda both: f"({both[0]})**{both[1]}"),
            inner.map("({})".format),
            inner.map("-{}".format),
        ),
        max_leaves=6,
    )


@given(sums())
def test_sums_are_what_python_makes_of_them_with_fractions(expression: str):
    in_fractions = re.sub(r"\d+(\.\d+)?", lambda number: f"F('{number[0]}')", expression)
    result = calculate(expression)
    try:
        expected = Fraction(eval(in_fractions, {"F": Fraction}))
    except ZeroDivisionError:
        assert result == "error: division by zero"
        return
    if not result.startswith("error: too"):
        assert abs(Fraction(result) - expected) <= Fraction(1, 2 * 10**6)
    else:
        assert expected == 0 or abs(expected) < 1e-6 or max(abs(expected.numerator), expected.denominator) > 10**100
