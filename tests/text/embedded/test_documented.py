"""Sentences are Python's own: each stands in the documentation of the thing it is about."""

import builtins
import importlib
import inspect
import re

import pytest

from tinygrad_chat.text.embedded.documented import LONGEST_SENTENCE, documented, first_sentence


def thing_called(name: str):
    home, _, last = name.rpartition(".")
    if not home:
        return getattr(builtins, last)
    return getattr(getattr(builtins, home, None) or importlib.import_module(home), last)


def plain(text: str) -> str:
    return "".join(re.findall(r"[a-z0-9]", text.lower()))


def test_each_sentence_is_in_the_documentation_of_its_name():
    known = documented()
    assert len(known) > 350
    for name, each in known.items():
        assert plain(each.sentence) in plain(inspect.getdoc(thing_called(name)) or ""), name
        assert 8 < len(each.sentence) <= LONGEST_SENTENCE, name
        assert each.sentence[-2:].count(".") == 1, name
        assert each.name == name
        assert name.endswith(each.last_name)


def test_arguments_are_those_of_the_signature():
    known = documented()
    assert known["str.split"].arguments == ("sep", "maxsplit")
    assert known["list.sort"].arguments == ("key", "reverse")
    assert known["sorted"].arguments == ("iterable", "key", "reverse")
    assert known["str.upper"].arguments == ()


@pytest.mark.parametrize(
    ("doc", "sentence"),
    [
        ("Return a copy.\n\nMore of it.", "Return a copy."),
        ("D.clear() -> None.  Remove all items from D.", "Remove all items from D."),
        ("map(func, *iterables) --> map object\n\nMake an iterator that\ncomputes.", "Make an iterator that computes."),
        ("min(iterable) -> value\nmin(a, b) -> value\n\nReturn its `smallest` item.", "Return its smallest item."),
        ("Return the start (default: 0) and more", "Return the start (default: 0) and more."),
        ("Make a file, e.g. one that is new. Then go.", "Make a file, e.g. one that is new."),
        ("x" * 300 + ".", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_first_sentence(doc, sentence):
    assert first_sentence(doc) == sentence
