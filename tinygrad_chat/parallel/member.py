"""Work that ranks share: rank 0 leads, and the others carry out its requests.

Rank 0 sends each request to all ranks, as a name and arguments. Then every rank, including rank 0, calls its `Member`'s
method of that name, in which the ranks communicate.
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

    All ranks call every method together, except that only rank 0 calls `ask` and `start`, and only the others `follow`.
    """

    predictor: Predictor

    def __init__(self, communicator: Communicator) -> None:
        self.communicator = communicator

    def ask(self, name: str, *arguments: Any, **own: Any) -> Any:
        """Call the method of that name on all ranks with the arguments, on rank 0 with `own` as well; return its result
        there."""
        self.start(name, *arguments)
        return getattr(self, name)(*arguments, **own)

    def start(self, name: str, *arguments: Any) -> None:
        """Call the method of that name on all other ranks; rank 0 then takes part in it by other means."""
        self.communicator.broadcast_object((name, arguments))

    def follow(self, done: Callable[[str], object] = lambda asked: None) -> None:
        """Carry out rank 0's requests until FAREWELL; call `done` with the name of each."""
        while (asked := self.communicator.broadcast_object()) is not FAREWELL:
            name, arguments = asked
            getattr(self, name)(*arguments)
            done(name)

    def gather(self, work: Callable[[], Result]) -> list[Result] | None:
        """Run `work` on each rank; return all results on rank 0, None elsewhere. If a rank raises a TinygradChatError,
        rank 0 raises it after all ranks have finished, so that they can take the next request."""
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
        """Compute the targets' losses for each rank's rows, which rank 0 passes as `batches`; return them on rank 0."""
        tokens, targets = self.communicator.scatter_objects(batches)
        if not len(tokens):
            return self.gather(lambda: np.zeros(tokens.shape))
        return self.gather(lambda: to_host(self.predictor.token_losses(tokens, targets)))


class DistributedPredictor:
    """A predictor for rank 0 that distributes the rows of a batch over all ranks."""

    def __init__(self, member: Member) -> None:
        self.context, self._member = member.predictor.context, member

    def token_losses(self, tokens: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return the loss of each target (B, T) given tokens (B, T), like the model's method of that name."""
        rows = even_shares(len(tokens), self._member.communicator.size)
        batches = [(tokens[each], targets[each]) for each in rows]
        return np.concatenate(self._member.ask("token_losses", batches=batches))
