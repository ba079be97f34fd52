"""A lesson of the tutor: a question and its answer, which code has worked out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from random import Random
from typing import Any

from tinygrad_chat.schema import parse_toml
from tinygrad_chat.text.conversations import Part
from tinygrad_chat.text.embedded.phrasings import Phrasing


@dataclass(frozen=True)
class Lesson:
    """What is asked, what the tutor says and calls, and the bare `answer`: a number, or letters.

    A later question may go back to the answer, or to the `word` that this one was about.
    """

    question: str
    parts: tuple[Part, ...]
    answer: str
    word: str = ""


@cache
def phrasings() -> dict[str, Any]:
    """Return what tutor.toml holds."""
    file = resources.files("tinygrad_chat.text.embedded") / "tutor.toml"
    return parse_toml(file.read_text(encoding="utf-8"), source="tutor.toml")


def asked(random: Random, kind: str, held_out: bool) -> str:
    """Return a phrasing of a kind of question, as somebody types it, with the places that are to be filled in."""
    return Phrasing(random, held_out).typed(random.choice(phrasings()[kind]["held_out" if held_out else "asked"]))
