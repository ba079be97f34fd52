"""Trained models evaluated by several ranks: rank 0 evaluates as it does alone, and the others compute a part of it."""

from __future__ import annotations

from collections.abc import Sequence

from tinygrad_chat.evaluation.answers import ROWS, Asked, Watch, answers_of
from tinygrad_chat.inference.calls import Tool
from tinygrad_chat.inference.distributed import SharedModel
from tinygrad_chat.inference.engine import Engine


class SharedEvaluation(SharedModel):
    """What one rank has of an evaluation."""

    def answers_of(self, engine: Engine, asked: Sequence[Asked], watch: Watch) -> list[str]:
        """Return, for rank 0, the answers of all ranks, which are dealt the problems in turn.

        All have as many, so `watch` is told how many there are by how far rank 0 itself is.
        """
        size = self.communicator.size

        def watch_all(done: int) -> None:
            watch(min(done * size, len(asked)))

        dealt = [asked[rank::size] for rank in range(size)]
        answered = self.ask("answer", engine.tool, dealt=dealt, engine=engine, watch=watch_all)
        return [answered[index % size][index // size] for index in range(len(asked))]

    def answer(
        self,
        tool: Tool | None,
        dealt: Sequence[Sequence[Asked]] | None = None,
        engine: Engine | None = None,
        watch: Watch = lambda done: None,
    ) -> list[list[str]] | None:
        """Return each rank's answers to its problems on rank 0, which gives them, and what it answers with itself."""
        mine = self.communicator.scatter_objects(dealt)
        answering = engine or Engine(self.model, self.tokenizer, rows=ROWS, tool=tool)
        return self.gather(lambda: answers_of(answering, mine, watch))
