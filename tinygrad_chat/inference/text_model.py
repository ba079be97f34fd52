"""A trained model with its tokenizer: text in, text out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygrad_chat.backend import to_host
from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.errors import UsageError
from tinygrad_chat.inference.calls import Tool
from tinygrad_chat.inference.chat import Chat
from tinygrad_chat.inference.engine import Engine
from tinygrad_chat.inference.generation import sample_texts
from tinygrad_chat.inference.options import GenerationOptions, SamplingOptions
from tinygrad_chat.models.protocol import LanguageModel
from tinygrad_chat.text.tokenizers import Tokenizer
from tinygrad_chat.tools.calculator import calculate


@dataclass(frozen=True)
class TextModel:
    """What `tinygrad_chat.load` and `train` return: a `model`, its `tokenizer` and the `config` it was trained with.

    `path` is the folder of its run, or of the checkpoint if one was named; `calculator` is the tool it may call in
    chats.
    """

    model: LanguageModel
    tokenizer: Tokenizer
    config: TrainingConfig
    path: str = ""
    calculator: Tool = calculate

    def generate(
        self,
        prompt: str = "",
        *,
        max_new_tokens: int = 500,
        temperature: float = 0.8,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 1,
        **options: Any,
    ) -> Iterator[str]:
        """Yield the text that continues `prompt`, piece by piece as it is drawn; the same for the same seed.

        It ends after `max_new_tokens`, or when the model begins a new document. If the prompt is longer than the
        context, the model sees only its end. `temperature` 0 takes the likeliest token; `top_k` and `top_p` narrow the
        choice. `options` are the others of `GenerationOptions`: min_p, repetition_penalty, stop. Raises ConfigError for
        an option out of range, VocabularyError for a character that the model does not know.
        """
        choice = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed, **options}
        chosen = SamplingOptions(prompt=prompt, max_new_tokens=max_new_tokens, **choice)
        pieces = next(sample_texts(self.model, self.tokenizer, chosen))
        if prompt:
            next(pieces)  # the prompt itself
        return pieces

    def chat(
        self, *, system: str | None = None, tools: bool = True, say: Callable[[str], None] = print, **options: Any
    ) -> Chat:
        """Start a new conversation with the model, which may call a calculator as a tool.

        `options` are those of `GenerationOptions`. Raises ConfigError for one out of range, UsageError for a model
        whose tokenizer has no chat tokens.
        """
        engine = Engine(self.model, self.tokenizer, rows=1, tool=self.calculator)
        return Chat(engine, system=system, options=GenerationOptions(**options), tools=tools, say=say)

    def logits(self, tokens: Any) -> np.ndarray:
        """Return the logits of the next token after each token.

        A text or integer tokens (T,) -> (T, V); tokens (B, T) -> (B, T, V). Raises UsageError for no tokens, and
        ShapeError for more tokens than the context.
        """
        try:
            tokens = np.asarray(self.tokenizer.encode(tokens) if isinstance(tokens, str) else tokens)
        except ValueError as error:
            raise UsageError(
                "logits: expected a text, or tokens (T,) or (B, T), received rows of different lengths"
            ) from error
        if tokens.ndim not in (1, 2) or tokens.dtype.kind not in "iu" or tokens.size == 0:
            raise UsageError(
                f"logits: expected a text, or tokens (T,) or (B, T), received {tokens.dtype} {tokens.shape}"
            )
        if not 0 <= tokens.min() <= tokens.max() < self.model.vocabulary:
            known, received = f"0 to {self.model.vocabulary - 1}", f"{tokens.min()} to {tokens.max()}"
            raise UsageError(f"logits: expected tokens from {known}, received {received}")
        logits = to_host(self.model.token_logits(np.atleast_2d(tokens.astype(np.int64))))
        return logits if tokens.ndim == 2 else logits[0]

    def __repr__(self) -> str:
        """Its source, then the layers."""
        source = f"{self.path}: " if self.path else ""
        return f"{source}{self.config.recipe.model}, {self.model.vocabulary} tokens\n{self.model!r}"
