"""What is asked of the engine, and what it answers: one step a token."""

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
"""A token and the logarithm of its probability."""


class TokenStep(NamedTuple):
    """A token of an answer. Texts of all the steps together are the answer's."""

    token: int
    text: str
    """What can be shown now: nothing while a character is incomplete or may be part of a stop string, more later."""
    logprob: float
    """The logarithm of the token's probability as the model has it, before temperature and all else."""
    rivals: tuple[Scored, ...]
    """The likeliest tokens and their log-probabilities, as many as were asked for."""
    forced: bool
    """Whether the token was put there, as a tool's result is, and not drawn."""
    kind: str = TEXT
    """What it is part of: TEXT, a CALL of a tool or its RESULT (text/conversations)."""


Steps = Generator[TokenStep, None, None]
"""Steps as they come; `close` ends it all early."""


class Request:
    """Tokens to go on from, and what came of it: `tokens`, those of the answer with the one at which it stopped.

    `finish_reason` is None while it goes on, then "stop" (a stop token or string), "length" (max_new_tokens, or the
    context is full) or "cancelled".
    """

    def __init__(
        self,
        prompt: Sequence[int],
        options: GenerationOptions,
        *,
        stop_tokens: Collection[int],
        rivals: int,
        forbidden_first: Collection[int],
        endless: bool,
        calls: ToolCalls | None,
        text: TextStream,
        random: np.random.Generator,
        unpenalized: Collection[int],
    ) -> None:
        self.options, self.rivals, self.calls, self.text = options, rivals, calls, text
        self.stop_tokens, self.endless, self.random = frozenset(stop_tokens), endless, random
        self.window = list(prompt)
        """What the model looks at: the prompt and the tokens so far or, of an endless text, the later of them."""
        self.tokens: list[int] = []
        self.steps: deque[TokenStep] = deque()
        """Those that nobody has taken yet."""
        self.forced: deque[int] = deque()
        self.finish_reason: str | None = None
        self._forbidden_first = frozenset(forbidden_first)
        self._unpenalized = frozenset(unpenalized)
        self._seen = set(prompt) - self._unpenalized if options.repetition_penalty != 1 else set()

    def cancel(self) -> None:
        """End it, if it has not ended; whoever shares the engine with it goes on."""
        self.finish_reason = self.finish_reason or "cancelled"

    @property
    def written(self) -> str:
        """The answer's text, of the steps that nobody has taken: without calls of tools and their results."""
        return "".join(step.text for step in self.steps if step.kind == TEXT)

    @property
    def forbidden(self) -> Collection[int]:
        """The tokens that cannot come next."""
        now = self.calls.forbidden if self.calls else frozenset()
        return now if self.tokens else now | self._forbidden_first

    @property
    def choice(self) -> tuple[object, ...]:
        """What decides how its next token is drawn, beside its random number and the tokens that were seen."""
        options = self.options
        limits = options.top_k, options.top_p, options.min_p
        return options.temperature, *limits, options.repetition_penalty, frozenset(self.forbidden)

    @property
    def seen(self) -> Collection[int]:
        """The tokens that a penalty for repetition is for."""
        return self._seen

    def take(self, token: int, logprob: float, rivals: tuple[Scored, ...], context: int) -> None:
        """Go on by a token, within a model's context, and end where it is the last."""
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
        elif len(self.tokens) == self.options.max_new_tokens or (len(self.window) > context and not self.endless):
            self.finish_reason = "length"
        if self.finish_reason:
            text += self.text.flush()
        self.steps.append(TokenStep(token, text, logprob, rivals, forced, kind))
