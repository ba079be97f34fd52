"""Work that ranks share: rank 0 leads, and the others do what it asks of them.

A request of rank 0 goes to all as its name and its arguments, and then every rank, rank 0 too, calls the method of its
`Member` of that name, in which they meet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from tinygrad_chat.backend import to_host
from tinygrad_chat.errors import TinygradChatError
from tinygrad_chat.models.protocol import Predictor
from tinygrad_chat.parallel.communicator import FAREWELL, Communicator
from tinygrad_chat.parallel.sharding import even_shares

Result = TypeVar("Result")


class Member:
    """What one rank has of the work: a model, with which it predicts its part.

    Every method is called on all ranks at once, but `ask` and `start`, which are rank 0's, and `follow`, which is for
    the others.
    """

    predictor: Predictor

    def __init__(self, communicator: Communicator) -> None:
        self.communicator = communicator

    def ask(self, name: str, *arguments: Any, **own: Any) -> Any:
        """Let all ranks call the method of that name with the arguments, and rank 0 also with its `own`."""
        self.start(name, *arguments)
        return getattr(self, name)(*arguments, **own)

    def start(self, name: str, *arguments: Any) -> None:
        """Let all other ranks call the method of that name, in which rank 0 meets them by other means."""
        self.communicator.broadcast_object((name, arguments))

    def follow(self, done: Callable[[str], object] = lambda asked: None) -> None:
        """Do what rank 0 asks, until it takes leave; `done` is told of each thing."""
        while (asked := self.communicator.broadcast_object()) is not FAREWELL:
            name, arguments = asked
            getattr(self, name)(*arguments)
            done(name)

    def gather(self, work: Callable[[], Result]) -> list[Result] | None:
        """Return on rank 0 what the `work` of each rank comes to. An error that explains itself is raised there, when
        all have done theirs, as it would be in one process: the ranks can be asked again."""
        try:
            found: Result | TinygradChatError = work()
        except TinygradChatError as error:
            found = error
        every = self.communicator.gather_objects(found)
        for each in every or ():
            if isinstance(each, TinygradChatError):
                raise each
        return every

    def token_losses(self, batches: Sequence[tuple[np.ndarray, np.ndarray]] | None = None) -> list[np.ndarray] | None:
        """Return the losses of the targets of each rank's rows on rank 0, which gives the rows."""
        tokens, targets = self.communicator.scatter_objects(batches)
        if not len(tokens):
            return self.gather(lambda: np.zeros(tokens.shape))
        return self.gather(lambda: to_host(self.predictor.token_losses(tokens, targets)))


class DistributedPredictor:
    """All ranks, each of which predicts some rows of a batch; for rank 0, with its `member`."""

    def __init__(self, member: Member) -> None:
        self.context, self._member = member.predictor.context, member

    def token_losses(self, tokens: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return the loss of each of targets (B, T) given tokens (B, T), as the model's method of that name does."""
        rows = even_shares(len(tokens), self._member.communicator.size)
        batches = [(tokens[each], targets[each]) for each in rows]
        return np.concatenate(self._member.ask("token_losses", batches=batches))
