"""A request to the engine, and its answer: one step for each token."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Generator, Sequence
from typing import NamedTuple

import numpy as np

from tinygrad_chat.inference.calls import ToolCalls
from tinygrad_chat.inference.options import GenerationOptions
from tinygrad_chat.inference.text_stream import TextStream
from tinygrad_chat.text.conversations import TEXT

Scored = tuple[int, float]
"""A token and its log-probability."""


class TokenStep(NamedTuple):
    """One token of an answer. The steps' texts, joined, are the answer's text."""

    token: int
    text: str
    """What can be shown now. Incomplete characters and possible beginnings of a stop string are held back for a later
    step."""
    logprob: float
    """The token's log-probability by the model, before temperature and all other options."""
    alternatives: tuple[Scored, ...]
    """The likeliest tokens with their log-probabilities, as many as were requested."""
    forced: bool
    """Whether the token was inserted, as in a tool's result, instead of drawn."""
    kind: str = TEXT
    """What it is part of: TEXT, a tool CALL or its RESULT (text/conversations)."""


Steps = Generator[TokenStep, None, None]
"""Steps as they come; `close` cancels the rest."""


class Request:
    """A prompt and the state of its answer: `tokens` are the answer's tokens, including the one at which it stopped.

    `finish_reason` is None while the request runs, then "stop" (a stop token or string), "length" (max_new_tokens, or
    the context is full) or "cancelled".
    """

    def __init__(
        self,
        prompt: Sequence[int],
        options: GenerationOptions,
        *,
        stop_tokens: Collection[int],
        alternatives: int,
        forbidden_first: Collection[int],
        slide_context: bool,
        calls: ToolCalls | None,
        text: TextStream,
        random: np.random.Generator,
        unpenalized: Collection[int],
    ) -> None:
        self.options, self.alternatives, self.calls, self.text = options, alternatives, calls, text
        self.stop_tokens, self.slide_context, self.random = frozenset(stop_tokens), slide_context, random
        self.window = list(prompt)
        """What the model sees: the prompt and the tokens so far, or only the later ones if its context slides."""
        self.tokens: list[int] = []
        self.steps: deque[TokenStep] = deque()
        """Steps not yet consumed."""
        self.forced: deque[int] = deque()
        self.finish_reason: str | None = None
        self._forbidden_first = frozenset(forbidden_first)
        self._unpenalized = frozenset(unpenalized)
        self._seen = set(prompt) - self._unpenalized if options.repetition_penalty != 1 else set()

    def cancel(self) -> None:
        """End the request, if it has not ended; other requests of the engine continue."""
        self.finish_reason = self.finish_reason or "cancelled"

    @property
    def written(self) -> str:
        """The text of the steps not yet consumed, without tool calls and their results."""
        return "".join(step.text for step in self.steps if step.kind == TEXT)

    @property
    def forbidden(self) -> Collection[int]:
        """The tokens that may not come next."""
        now = self.calls.forbidden if self.calls else frozenset()
        return now if self.tokens else now | self._forbidden_first

    @property
    def choice(self) -> tuple[object, ...]:
        """All that decides how the next token is drawn, except the random number and the tokens seen so far: requests
        with equal choices can be drawn together."""
        options = self.options
        limits = options.top_k, options.top_p, options.min_p
        return options.temperature, *limits, options.repetition_penalty, frozenset(self.forbidden)

    @property
    def seen(self) -> Collection[int]:
        """The tokens that the repetition penalty applies to."""
        return self._seen

    def take(self, token: int, logprob: float, alternatives: tuple[Scored, ...], context: int) -> None:
        """Append a token, and finish the request if it is the last one, or if `context` is full."""
        forced = bool(self.forced)
        if forced:
            self.forced.popleft()
        kind, called = self.calls.after(token) if self.calls else (TEXT, [])
        self.forced.extend(called)
        self.tokens.append(token)
        self.window.append(token)
        if self.options.repetition_penalty != 1 and token not in self._unpenalized:
            self._seen.add(token)
        text = self.text.push(token, may_stop=kind == TEXT)
        if self.text.stopped or token in self.stop_tokens:
            self.finish_reason = "stop"
        elif len(self.tokens) == self.options.max_new_tokens or (len(self.window) > context and not self.slide_context):
            self.finish_reason = "length"
        if self.finish_reason:
            text += self.text.flush()
        self.steps.append(TokenStep(token, text, logprob, alternatives, forced, kind))
