"""Evaluation on several ranks: rank 0 runs the same code as in one process, and the others answer a share of it."""

from __future__ import annotations

from collections.abc import Sequence

from tinygrad_chat.evaluation.answers import ROWS, Asked, Watch, answers_of
from tinygrad_chat.inference.calls import Tool
from tinygrad_chat.inference.distributed import SharedModel
from tinygrad_chat.inference.engine import Engine


class SharedEvaluation(SharedModel):
    """One rank's part of an evaluation."""

    def answers_of(self, engine: Engine, asked: Sequence[Asked], watch: Watch) -> list[str]:
        """Return on rank 0 the answers of all ranks, to which the problems are dealt round-robin.

        All ranks have about the same number, so `watch` is told an estimate: rank 0's own progress times the ranks.
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
        """Return on rank 0 each rank's answers to its problems. Rank 0 passes the problems, and its own engine."""
        mine = self.communicator.scatter_objects(dealt)
        answering = engine or Engine(self.model, self.tokenizer, rows=ROWS, tool=tool)
        return self.gather(lambda: answers_of(answering, mine, watch))
