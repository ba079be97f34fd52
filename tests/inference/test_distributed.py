"""A trained model that several ranks hold, here threads: what they sample is what one process samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tinygrad_chat.errors import DivergedError, VocabularyError
from tinygrad_chat.inference.distributed import SharedModel
from tinygrad_chat.inference.generation import sample_texts
from tinygrad_chat.inference.load import load_model
from tinygrad_chat.inference.options import SamplingOptions
from tinygrad_chat.parallel import FAREWELL, Communicator, ThreadTeam
from tinygrad_chat.runs.checkpoint import find_checkpoints
from tinygrad_chat.runs.state import SavedModel
from tinygrad_chat.training.loop import train
from tinygrad_chat.training.run import Run

Lead = Callable[[SharedModel], Any]


@pytest.fixture
def saved(start: Callable[..., Run]) -> SavedModel:
    run = start(context=16, lr=0.1)
    for _ in train(run):
        pass
    return SavedModel.load(find_checkpoints(run.folder.checkpoints)[-1])


def share(saved: SavedModel, ranks: int, work: Lead, **compute: Any) -> Any:
    """Let rank 0 share the model and do `work`; return what it comes to."""

    def on_rank(communicator: Communicator) -> Any:
        if communicator.rank:
            SharedModel.take_part(communicator)
            return None
        shared = SharedModel(communicator)
        shared.share(saved, load_model(saved, **compute), **compute)
        result = work(shared)
        communicator.broadcast_object(FAREWELL)
        return result

    return ThreadTeam(ranks).run(on_rank)[0]


def whole(texts: Iterator[Iterator[str]]) -> list[list[str]]:
    return [list(pieces) for pieces in texts]


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
@pytest.mark.parametrize("compute", [{}, {"weights": "int8"}, {"mode": "scalar"}], ids=str)
def test_samples_are_those_of_one_process_in_their_order(saved: SavedModel, ranks: int, compute: dict[str, Any]):
    options = SamplingOptions(num_samples=5, max_new_tokens=12, prompt="The ", seed=3)
    alone = whole(sample_texts(load_model(saved, **compute), saved.tokenizer, options))
    shared = share(saved, ranks, lambda shared: whole(shared.texts(options, say=print)), **compute)
    assert ["".join(pieces) for pieces in shared] == ["".join(pieces) for pieces in alone]
    assert len({"".join(pieces) for pieces in alone}) > 1
    for first in range(0, 5, ranks):  # rank 0's come as they are drawn
        assert shared[first] == alone[first]


def test_a_long_prompt_is_told_once_and_a_strange_one_refused_before_any_rank_draws(saved: SavedModel):
    said: list[str] = []

    def work(shared: SharedModel) -> None:
        options = SamplingOptions(num_samples=4, max_new_tokens=2, prompt="The quick brown fox jumps over")
        assert len(whole(shared.texts(options, say=said.append))) == 4
        with pytest.raises(VocabularyError, match="☃"):
            shared.texts(SamplingOptions(prompt="☃"), say=said.append)

    share(saved, 2, work)
    assert said == ["the prompt has 30 tokens; the model continues from the last 16, its context"]


def test_a_model_that_diverged_is_the_same_error_as_in_one_process(saved: SavedModel):
    broken = {name: np.full_like(np.asarray(each), np.nan) for name, each in saved.weights.items()}
    options = SamplingOptions(num_samples=3)

    def work(shared: SharedModel) -> None:
        shared.share(saved, load_model(SavedModel(**{**vars(saved), "weights": broken})))
        with pytest.raises(DivergedError):
            whole(shared.texts(options, say=print))
        raise InterruptedError  # which ends it all: the others wait for what rank 0 has drawn

    with pytest.raises(InterruptedError):
        share(saved, 2, work)


def test_another_model_takes_the_place_of_the_first_on_all_ranks(saved: SavedModel):
    zeros = {name: np.zeros_like(np.asarray(each)) for name, each in saved.weights.items()}
    other = SavedModel(**{**vars(saved), "weights": zeros})
    options = SamplingOptions(num_samples=4, max_new_tokens=12)

    def work(shared: SharedModel) -> Any:
        shared.share(other, load_model(other))
        return whole(shared.texts(options, say=print))

    alone = whole(sample_texts(load_model(other), other.tokenizer, options))
    assert list(map("".join, share(saved, 2, work))) == list(map("".join, alone))
