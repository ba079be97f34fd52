"""Which steps are captured as CUDA graphs, and when. Kinds are letters here, and a captured step is a text."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest

from tinygrad_chat.backend import EAGER_STEPS, CapturedByKind, GraphCapture

TIMES = EAGER_STEPS + 1  # a kind comes until it is captured


class NoGraphs(GraphCapture):
    """In place of a stream and a memory pool."""

    def on_its_stream(self) -> AbstractContextManager[None]:
        return nullcontext()

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        return work


class Steps:
    """Steps by their kinds, those that were captured in a list; one kind cannot be."""

    def __init__(self, *, limit: int, refused: str = "") -> None:
        capture = NoGraphs()
        self.pool = weakref.ref(capture)
        self.by_kind = CapturedByKind[str, str](capture, limit=limit)
        self.made: list[str] = []
        self._refused = refused

    def take(self, kinds: str) -> list[bool]:
        """Take steps of these kinds; return which were captured."""
        found = [self.by_kind.find(kind, lambda capture, kind=kind: self._make(capture, kind)) for kind in kinds]
        assert all(step in (None, f"captured {kind}") for step, kind in zip(found, kinds, strict=True))
        return [step is not None for step in found]

    def _make(self, capture: GraphCapture, kind: str) -> str:
        assert capture is self.pool()
        self.made.append(kind)
        if kind == self._refused:
            raise MemoryError("no room\nfor a graph")
        return f"captured {kind}"


@pytest.mark.parametrize("limit", [1, 3])
def test_a_kind_is_captured_once_after_some_eager_steps(limit: int):
    steps = Steps(limit=limit)
    assert steps.take("a" * (EAGER_STEPS + 5)) == [False] * EAGER_STEPS + [True] * 5
    assert (steps.made, len(steps.by_kind), steps.by_kind.refused) == (["a"], 1, None)


def test_within_the_limit_kinds_are_counted_apart():
    steps = Steps(limit=3)
    assert steps.take("abc" * TIMES) == [False] * (3 * EAGER_STEPS) + [True] * 3
    assert len(steps.by_kind) == 3


def test_beyond_the_limit_the_kind_that_has_not_come_for_longest_makes_room():
    steps = Steps(limit=2)
    steps.take("ab" * (EAGER_STEPS - 1) + "ba" + "c")
    assert steps.take("ab") == [True, False]


def test_with_room_for_one_kind_only_those_in_a_row_count():
    steps = Steps(limit=1)
    assert not any(steps.take(("a" * EAGER_STEPS + "b" * EAGER_STEPS) * 3))


def test_captured_kinds_keep_their_places_and_others_stay_eager():
    steps = Steps(limit=1)
    steps.take("a" * TIMES)
    assert steps.take("b" * (TIMES + 2) + "a") == [False] * (TIMES + 2) + [True]
    assert steps.made == ["a"]


def test_a_kind_that_was_forgotten_is_captured_at_its_next_step():
    steps = Steps(limit=2)
    steps.take("a" * TIMES)
    steps.by_kind.forget()
    assert len(steps.by_kind) == 0
    assert steps.take("ab") == [True, False]
    assert steps.made == ["a", "a"]


def test_after_an_error_nothing_is_captured_nor_kept_and_the_error_is_a_line():
    steps = Steps(limit=3, refused="b")
    steps.take("a" * TIMES)
    assert not any(steps.take("b" * (TIMES + 2) + "ac" * (TIMES + 1)))
    assert (steps.made, len(steps.by_kind), steps.by_kind.refused) == (["a", "b"], 0, "no room for a graph")


def test_after_an_error_the_memory_pool_is_let_go():
    steps = Steps(limit=1, refused="a")
    steps.take("a" * EAGER_STEPS)
    assert steps.pool() is not None
    steps.take("a")
    assert steps.pool() is None
