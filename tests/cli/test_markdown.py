"""Markdown as it streams: whatever the pieces, the same text; and no sign that means nothing is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_chat.cli.markdown import BLOCK, BOLD, CODE, PLAIN, MarkdownReader, Span, spans


def joined(pieces: list[str]) -> list[Span]:
    """The spans, neighbours of one style as one."""
    found: list[Span] = []
    for text, style in spans(pieces):
        if found and found[-1][1] == style:
            found[-1] = (found[-1][0] + text, style)
        else:
            found.append((text, style))
    return found


CASES = [
    ("plain", [("plain", PLAIN)]),
    ("a **b c** d", [("a ", PLAIN), ("b c", BOLD), (" d", PLAIN)]),
    ("`x` and ``y`z``", [("x", CODE), (" and ", PLAIN), ("y`z", CODE)]),
    ("- one\n* two\n  - in", [("• one\n• two\n  • in", PLAIN)]),
    ("# Title\ntext", [("Title", BOLD), ("\ntext", PLAIN)]),
    ("so:\n```python\nx = `1`\n\n- y\n```\nok", [("so:\n", PLAIN), ("x = `1`\n\n- y\n", BLOCK), ("ok", PLAIN)]),
    ("2**10 and 2 ** 3", [("2**10 and 2 ** 3", PLAIN)]),
    ("f(*args, **kwargs)", [("f(*args, **kwargs)", PLAIN)]),
    ("(**a, **b)", [("(**a, **b)", PLAIN)]),
    ("a ` b\nc ` d", [("a ` b\nc ` d", PLAIN)]),
    ("**open\nnext**", [("**open\nnext**", PLAIN)]),
    ("-1 + *a", [("-1 + *a", PLAIN)]),
    ("#hash", [("#hash", PLAIN)]),
    ("-", [("-", PLAIN)]),
    ("```", [("```", PLAIN)]),
    ("** **", [("** **", PLAIN)]),
]


@pytest.mark.parametrize(("text", "expected"), CASES, ids=[text for text, _ in CASES])
def test_a_text_has_its_styles_whole_or_letter_by_letter(text: str, expected: list[Span]):
    assert joined([text]) == expected
    assert joined(list(text)) == expected


@given(st.lists(st.text("ab `*#-\n", max_size=6), max_size=8))
def test_pieces_change_nothing(pieces: list[str]):
    assert joined(pieces) == joined(["".join(pieces)])


@given(st.text("ab *\n", max_size=30))
def test_letters_are_all_there(text: str):
    shown = "".join(part for part, _ in spans([text]))
    assert [letter for letter in shown if letter in "ab\n"] == [letter for letter in text if letter in "ab\n"]


def test_what_is_sure_comes_at_once():
    reader = MarkdownReader()
    assert list(reader.feed("The answer")) == [("The answer", PLAIN)]
    assert list(reader.feed(" is **")) == [(" is ", PLAIN)]
    assert list(reader.feed("so**")) == []
    assert list(reader.feed(".")) == [("so", BOLD), (".", PLAIN)]


def test_a_sign_that_nothing_closes_does_not_hold_the_text_for_ever():
    reader = MarkdownReader()
    list(reader.feed("a `"))
    assert "".join(text for text, _ in reader.feed("b" * 300)) == "`" + "b" * 300
