"""Work that ranks share, whatever it is: asked by rank 0, done by all, and done again after an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tinygrad_chat.errors import DivergedError
from tinygrad_chat.parallel import FAREWELL, Communicator, ThreadTeam
from tinygrad_chat.parallel.member import DistributedPredictor, Member


class Sums:
    """A model whose loss at each target is the sum of its row."""

    context = 4

    def __init__(self) -> None:
        self.rows: list[int] = []

    def token_losses(self, tokens: np.ndarray, targets: np.ndarray) -> np.ndarray:
        self.rows.append(len(tokens))
        return np.broadcast_to(tokens.sum(axis=1, keepdims=True), targets.shape).astype(np.float32)


class Summing(Member):
    """A rank that has such a model, and can fail."""

    def __init__(self, communicator: Communicator) -> None:
        super().__init__(communicator)
        self.predictor = self.sums = Sums()

    def rank_of_each(self, failing: int | None) -> list[int] | None:
        def work() -> int:
            if self.communicator.rank == failing:
                raise DivergedError(f"rank {failing}: the logits are NaN", "train less")
            return self.communicator.rank

        return self.gather(work)


def lead(ranks: int, work: Callable[[Summing], Any], followed: list[str] | None = None) -> tuple[Any, list[Summing]]:
    """Let rank 0 do `work` and the others follow it; return what it came to, and all ranks."""
    members: dict[int, Summing] = {}

    def on_rank(communicator: Communicator) -> Any:
        member = members[communicator.rank] = Summing(communicator)
        if communicator.rank:
            member.follow(followed.append if followed is not None else lambda asked: None)
            return None
        result = work(member)
        communicator.broadcast_object(FAREWELL)
        return result

    return ThreadTeam(ranks).run(on_rank)[0], [members[rank] for rank in range(ranks)]


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
@pytest.mark.parametrize("rows", [1, 4, 7])
def test_each_rank_predicts_its_rows_and_those_without_any_are_not_asked(ranks: int, rows: int):
    tokens = np.arange(rows * 4).reshape(rows, 4)
    losses, members = lead(ranks, lambda member: DistributedPredictor(member).token_losses(tokens, tokens))
    np.testing.assert_array_equal(losses, Sums().token_losses(tokens, tokens))
    assert sum(sum(member.sums.rows) for member in members) == rows
    assert 0 not in [count for member in members for count in member.sums.rows]


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_an_error_of_any_rank_is_raised_on_rank_0_and_the_ranks_can_be_asked_again(failing: int):
    def work(member: Summing) -> Any:
        with pytest.raises(DivergedError, match=f"rank {failing}: the logits are NaN; train less"):
            member.ask("rank_of_each", failing)
        return member.ask("rank_of_each", None)

    followed: list[str] = []
    assert lead(3, work, followed)[0] == [0, 1, 2]
    assert followed == ["rank_of_each"] * 4


def test_what_is_started_is_done_by_the_others_while_rank_0_does_something_else():
    def work(member: Summing) -> Any:
        member.start("rank_of_each", None)
        return member.gather(lambda: 7)

    assert lead(3, work)[0] == [7, 1, 2]
