"""A trained model on several ranks: rank 0 opens it and broadcasts its weights."""

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
    """One rank's copy of a model that all ranks sample from."""

    model: LanguageModel
    tokenizer: Tokenizer

    @classmethod
    def take_part(cls, communicator: Communicator, *, done: Callable[[str], object] = lambda asked: None) -> None:
        """Serve rank 0's requests on another rank until rank 0 ends the work; `done` is told of each request."""
        cls(communicator).follow(done)

    def use_threads(self, threads: int | None) -> None:
        """Set the number of threads of matrix products on each rank; None leaves it as it is."""
        use_threads(threads)

    def share(self, saved: SavedModel, model: LanguageModel, **compute: Any) -> None:
        """Give all ranks the `model` that rank 0 has loaded with `compute`; it replaces an earlier one.

        Raises ConfigError if another rank's machine has too little memory for it.
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
        """Load the model from the weights that rank 0 broadcasts; rank 0 passes its own `weights` and `model`."""
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
        """Yield on rank 0 what `sample_texts` does. In each round every rank draws a sample: rank 0's is yielded as it
        is drawn, the others when they are complete."""
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
        """Draw, on another rank, sample number `first` + rank, if there is one."""
        numbers = range(first + self.communicator.rank, options.num_samples)[:1]
        texts = sample_texts(self.model, self.tokenizer, options, numbers=numbers)
        self.gather(lambda: "".join(itertools.chain.from_iterable(texts)))
