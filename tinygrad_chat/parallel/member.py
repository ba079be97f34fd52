"""Work that ranks share: rank 0 leads, and the others do what it asks of them.

Rank 0 sends each request to all ranks, as a name and arguments. Then every rank, rank 0 too, calls the method of that
name of its `Member`, and the ranks communicate in it.
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
    """One rank's part of the work, and the model with which it predicts.

    Every method is called on all ranks at once, except `ask` and `start`, which only rank 0 calls, and `follow`, which
    only the others call.
    """

    predictor: Predictor

    def __init__(self, communicator: Communicator) -> None:
        self.communicator = communicator

    def ask(self, name: str, *arguments: Any, **own: Any) -> Any:
        """Let all ranks call the method of that name with the arguments, and rank 0 also with its `own`."""
        self.start(name, *arguments)
        return getattr(self, name)(*arguments, **own)

    def start(self, name: str, *arguments: Any) -> None:
        """Let all other ranks call the method of that name; rank 0 takes part in it by other means."""
        self.communicator.broadcast_object((name, arguments))

    def follow(self, done: Callable[[str], object] = lambda asked: None) -> None:
        """Do what rank 0 asks, until it takes leave; `done` is told of each thing."""
        while (asked := self.communicator.broadcast_object()) is not FAREWELL:
            name, arguments = asked
            getattr(self, name)(*arguments)
            done(name)

    def gather(self, work: Callable[[], Result]) -> list[Result] | None:
        """Return on rank 0 the results of each rank's `work`. If one raises a TinygradChatError, raise it there, as in
        one process, but only when all ranks have finished: then they can take the next request."""
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
        """Return on rank 0 the losses of the targets of each rank's rows; rank 0 gives the rows."""
        tokens, targets = self.communicator.scatter_objects(batches)
        if not len(tokens):
            return self.gather(lambda: np.zeros(tokens.shape))
        return self.gather(lambda: to_host(self.predictor.token_losses(tokens, targets)))


class DistributedPredictor:
    """A predictor for rank 0, in which every rank predicts some rows of a batch."""

    def __init__(self, member: Member) -> None:
        self.context, self._member = member.predictor.context, member

    def token_losses(self, tokens: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return the loss of each of targets (B, T) given tokens (B, T), as the model's method of that name does."""
        rows = even_shares(len(tokens), self._member.communicator.size)
        batches = [(tokens[each], targets[each]) for each in rows]
        return np.concatenate(self._member.ask("token_losses", batches=batches))
