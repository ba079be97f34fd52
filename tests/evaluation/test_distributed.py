"""Models evaluated by several ranks, here threads: the report is that of one process."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.test_answers import Asked, asks
from tinygrad_chat.evaluation.answers import answers_of, evaluate_task
from tinygrad_chat.evaluation.distributed import SharedEvaluation
from tinygrad_chat.evaluation.text import TextEvaluation, evaluate_on_text
from tinygrad_chat.inference.engine import Engine
from tinygrad_chat.inference.load import load_model
from tinygrad_chat.parallel import FAREWELL, Communicator, ThreadTeam
from tinygrad_chat.parallel.member import DistributedPredictor
from tinygrad_chat.runs.checkpoint import find_checkpoints
from tinygrad_chat.runs.figures import calculator_of
from tinygrad_chat.runs.state import SavedModel
from tinygrad_chat.text.conversations import Conversation
from tinygrad_chat.training.loop import train
from tinygrad_chat.training.run import Run

RANKS = [1, 2, 3, 5]


def trained(run: Run) -> SavedModel:
    for _ in train(run):
        pass
    return SavedModel.load(find_checkpoints(run.folder.checkpoints)[-1])


@pytest.fixture
def reader(start: Callable[..., Run]) -> SavedModel:
    return trained(start(eval_tokens=0, batch_size=4, grad_accumulation=2))


@pytest.fixture
def talker(start: Callable[..., Run], tmp_path: Path) -> SavedModel:
    chats = (Conversation.of(f"{number}?", f"It is {number}.").to_json() for number in range(200))
    (tmp_path / "chats.jsonl").write_text("".join(f"{json.dumps(chat)}\n" for chat in chats))
    settings = {"data": str(tmp_path / "chats.jsonl"), "tokenizer": "bpe", "vocabulary": 266, "context": 64}
    return trained(start(**settings, batch_size=2, lr=0.05, steps=20, eval_every=20))


def share(saved: SavedModel, ranks: int, work: Callable[[SharedEvaluation], Any]) -> Any:
    """Let rank 0 share the model and do `work`; return what it comes to."""

    def on_rank(communicator: Communicator) -> Any:
        if communicator.rank:
            SharedEvaluation.take_part(communicator)
            return None
        shared = SharedEvaluation(communicator)
        shared.share(saved, load_model(saved))
        result = work(shared)
        communicator.broadcast_object(FAREWELL)
        return result

    return ThreadTeam(ranks).run(on_rank)[0]


def expect_same(shared: TextEvaluation, alone: TextEvaluation) -> None:
    """The same tokens, and figures that differ by rounding alone."""
    assert (shared.source, shared.notes) == (alone.source, alone.notes)
    for name, value in dataclasses.asdict(alone.evaluation).items():
        found = getattr(shared.evaluation, name)
        assert found == (pytest.approx(value, rel=1e-6) if isinstance(value, float) else value), name


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("most_bytes", [None, 7, 100])
@pytest.mark.parametrize("kind", ["reader", "talker"])
def test_a_text_is_as_in_one_process(request: pytest.FixtureRequest, kind: str, ranks: int, most_bytes: int | None):
    saved: SavedModel = request.getfixturevalue(kind)
    told: list[Any] = []

    def work(shared: SharedEvaluation) -> list[TextEvaluation]:
        return list(
            evaluate_on_text(
                DistributedPredictor(shared),
                saved.tokenizer,
                saved.config,
                most_bytes=most_bytes,
                ranks=ranks,
                progress=lambda *done: told.append(done),
            )
        )

    [alone] = evaluate_on_text(load_model(saved), saved.tokenizer, saved.config, most_bytes=most_bytes)
    [found] = share(saved, ranks, work)
    expect_same(found, alone)
    assert told[-1][0] == "evaluating"


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_each_rank_takes_as_many_rows_at_a_time_as_one_process(
    reader: SavedModel, monkeypatch: pytest.MonkeyPatch, ranks: int
):
    seen: list[int] = []
    original = SharedEvaluation.token_losses

    def note(self: SharedEvaluation, batches: Any = None) -> Any:
        seen.extend(len(tokens) for tokens, _ in batches or ())
        return original(self, batches)

    monkeypatch.setattr(SharedEvaluation, "token_losses", note)

    def work(shared: SharedEvaluation) -> None:
        list(evaluate_on_text(DistributedPredictor(shared), reader.tokenizer, reader.config, ranks=ranks))

    share(reader, ranks, work)
    assert max(seen) == reader.config.data.batch_size // reader.config.compute.grad_accumulation == 2
    assert seen[:ranks] == [2] * ranks


PROBLEMS = [
    asks("1?", "It is 1."),
    asks("2?", "no", "no", "It is 2."),
    asks("3?" * 40, "too long"),
    *(asks(f"{number}?", f"It is {number}.") for number in range(4, 12)),
    asks("5?", "It is 5.", "It is 5.", "It is"),
]


@pytest.mark.profile("ci")
@pytest.mark.parametrize("ranks", [*RANKS, 20])
def test_answers_are_as_in_one_process_in_their_order(talker: SavedModel, ranks: int):
    def ask(answering: Any, told: list[Any]) -> Any:
        engine = Engine(load_model(talker), talker.tokenizer, rows=3, tool=calculator_of(talker))
        return evaluate_task(
            engine, Asked(*PROBLEMS), examples=99, progress=lambda *done: told.append(done), answering=answering
        )

    told: list[Any] = []
    alone = ask(answers_of, [])
    shared = share(talker, ranks, lambda shared: ask(shared.answers_of, told))
    assert dataclasses.replace(shared, seconds=0) == dataclasses.replace(alone, seconds=0)
    assert len({example.answer for example in alone.examples}) > 2
    counts = [done for _, done, _ in told]
    assert counts == sorted(counts)
    assert counts[-len(PROBLEMS) - 1] == len(PROBLEMS)  # before any is checked
    assert told[-1] == ("answering asked", len(PROBLEMS), len(PROBLEMS))


@pytest.mark.parametrize("ranks", [2, 3])
def test_each_rank_answers_the_problems_of_its_turn(talker: SavedModel, monkeypatch: pytest.MonkeyPatch, ranks: int):
    seen: list[list[str]] = []

    def note(engine: Engine, asked: Any, watch: Any) -> list[str]:
        seen.append([each.question.messages[-1].text for each in asked])
        return answers_of(engine, asked, watch)

    monkeypatch.setattr("tinygrad_chat.evaluation.distributed.answers_of", note)

    def work(shared: SharedEvaluation) -> None:
        evaluate_task(Engine(shared.model, talker.tokenizer), Asked(*PROBLEMS), answering=shared.answers_of)

    share(talker, ranks, work)
    questions = [problem.question.messages[-1].text for problem in PROBLEMS]
    assert sorted(seen) == sorted(questions[rank::ranks] for rank in range(ranks))
