"""A trained model that several ranks hold: rank 0 opens it, and the others have it from there."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from tinygrad_chat.inference.generation import sample_texts
from tinygrad_chat.inference.load import load_model
from tinygrad_chat.inference.options import SamplingOptions
from tinygrad_chat.models.protocol import LanguageModel
from tinygrad_chat.parallel import Communicator, use_threads
from tinygrad_chat.parallel.member import Member
from tinygrad_chat.runs.state import SavedModel
from tinygrad_chat.text.tokenizers import Tokenizer


class SharedModel(Member):
    """What one rank has of a model that all ranks sample from."""

    model: LanguageModel
    tokenizer: Tokenizer

    @classmethod
    def take_part(cls, communicator: Communicator, *, done: Callable[[str], object] = lambda asked: None) -> None:
        """Do, on another rank, what rank 0 asks, until it takes leave; `done` is told of each thing."""
        cls(communicator).follow(done)

    def use_threads(self, threads: int | None) -> None:
        """Let products of matrices take so many threads on each rank; None for what they take already."""
        use_threads(threads)

    def share(self, saved: SavedModel, model: LanguageModel, **compute: Any) -> None:
        """Let all ranks hold the `model` of rank 0, which it has loaded with `compute`, in place of an earlier one.

        Raises ConfigError where the machine of another rank has no room for it.
        """
        shapes = {name: each.shape for name, each in saved.weights.items()}
        described = dataclasses.replace(saved, weights={})
        self.ask("hold", described, shapes, compute, weights=saved.weights, model=model)

    def hold(
        self,
        described: SavedModel,
        shapes: Mapping[str, tuple[int, ...]],
        compute: Mapping[str, Any],
        weights: Mapping[str, Any] | None = None,
        model: LanguageModel | None = None,
    ) -> None:
        """Load the model from the weights of rank 0, which has done so and gives both."""
        received: dict[str, np.ndarray] = {}
        for name, shape in shapes.items():
            if weights is None:
                received[name] = np.empty(shape, np.float32)
                self.communicator.broadcast(received[name])
            else:
                self.communicator.broadcast(np.array(weights[name], np.float32, order="C"))

        def load() -> None:
            saved = dataclasses.replace(described, weights=received)
            self.model = self.predictor = load_model(saved, **compute) if model is None else model
            self.tokenizer = described.tokenizer

        self.gather(load)

    def texts(self, options: SamplingOptions, *, say: Callable[[str], None]) -> Iterator[Iterator[str]]:
        """Yield, on rank 0, what `sample_texts` does. Of as many samples as there are ranks each draws one: the first
        is yielded as it is drawn, the others whole."""
        step = self.communicator.size
        mine = sample_texts(self.model, self.tokenizer, options, numbers=range(0, options.num_samples, step), say=say)

        def in_turn() -> Iterator[Iterator[str]]:
            for first, pieces in zip(range(0, options.num_samples, step), mine, strict=True):
                self.start("sample", options, first)
                yield pieces
                others = self.gather(str) or []
                yield from (iter([text]) for text in others[1 : options.num_samples - first])

        return in_turn()

    def sample(self, options: SamplingOptions, first: int) -> None:
        """Draw, on another rank, the sample that is so many behind `first` as this rank is behind rank 0, if it is one
        of those that are wanted."""
        numbers = range(first + self.communicator.rank, options.num_samples)[:1]
        texts = sample_texts(self.model, self.tokenizer, options, numbers=numbers)
        self.gather(lambda: "".join(itertools.chain.from_iterable(texts)))
