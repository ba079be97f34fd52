"""The inference engine: continuous batching, in which requests join and leave between any two tokens.

An answer does not depend on the other requests: each request has its own row of the cache and its own random numbers.
So a seed gives the same text alone or in a batch, except that float32 products of another size may round differently.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from tinygrad_chat.backend import array_module, to_host
from tinygrad_chat.errors import UsageError
from tinygrad_chat.inference.calls import Tool, ToolCalls
from tinygrad_chat.inference.options import GenerationOptions
from tinygrad_chat.inference.processors import forbid
from tinygrad_chat.inference.request import Request, Scored, Steps
from tinygrad_chat.inference.rows import rows_of
from tinygrad_chat.inference.sampler import NO_TOKEN, draw_tokens, log_probabilities, no_numbers
from tinygrad_chat.inference.text_stream import TextStream
from tinygrad_chat.models.protocol import LanguageModel
from tinygrad_chat.seeds import rng
from tinygrad_chat.text.conversations import ChatTemplate, Conversation
from tinygrad_chat.text.tokenizers import Tokenizer

PREFIX_BYTES = 1 << 28


class Engine:
    """A model that answers up to `rows` requests at a time; further requests wait in a queue.

    Without a tokenizer there are tokens but no text. `tool` answers the assistant's tool calls. Keys and values of
    finished requests are kept in a prefix cache of up to `prefix_bytes`, so a request that shares a prefix with one of
    them computes only the tokens after it. `cached=False` turns the key/value cache off.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer | None,
        *,
        rows: int = 8,
        tool: Tool | None = None,
        prefix_bytes: int = PREFIX_BYTES,
        cached: bool = True,
    ) -> None:
        self.model, self.tokenizer, self.tool = model, tokenizer, tool
        self._rows = rows_of(model, rows, cached=cached, prefix_bytes=prefix_bytes)
        self._most = rows
        self._active: list[Request] = []  # one for each row
        self._waiting: deque[Request] = deque()

    def submit(
        self,
        tokens: Sequence[int],
        options: GenerationOptions | None = None,
        *,
        stop_tokens: Collection[int] = (),
        alternatives: int = 0,
        calls: ToolCalls | None = None,
        forbidden_first: Collection[int] = (),
        slide_context: bool = False,
        random: np.random.Generator | None = None,
    ) -> Request:
        """Queue a prompt of at least one token and at most the context; `step` or `stream` computes the answer.

        The answer ends after any of the `stop_tokens`, and none of `forbidden_first` comes first. Each step reports
        the `alternatives` likeliest tokens. `calls` tracks tool calls, by default to the engine's tool, if there is
        one. When the context is full, the request ends; with `slide_context` it goes on from the later half of the
        context, so that a full context is not read again for every token. `random` defaults to the stream of the
        options' seed.
        Raises UsageError for tokens that the model cannot read.
        """
        options = options or GenerationOptions()
        if not 1 <= len(tokens) <= self.model.context:
            expected = f"1 to {self.model.context} tokens (the model's context)"
            raise UsageError(f"generate: expected a prompt of {expected}, received {len(tokens)}")
        if not 0 <= min(tokens) <= max(tokens) < self.model.vocabulary:
            received = f"{min(tokens)} to {max(tokens)}"
            raise UsageError(f"generate: expected tokens from 0 to {self.model.vocabulary - 1}, received {received}")
        if calls is None and self.tool is not None:
            calls = ToolCalls(self.template, self.tool)
        request = Request(
            [int(token) for token in tokens],
            options,
            stop_tokens=stop_tokens,
            alternatives=min(alternatives, self.model.vocabulary),
            forbidden_first=forbidden_first,
            slide_context=slide_context,
            calls=calls,
            text=TextStream(self.tokenizer, options.stops),
            random=rng(options.seed, "sampling") if random is None else random,
            unpenalized=self.tokenizer.special_tokens.values() if self.tokenizer else (),
        )
        self._waiting.append(request)
        return request

    @property
    def template(self) -> ChatTemplate:
        """The tokenizer's chat template. Raises UsageError if it has none."""
        if self.tokenizer is None:
            raise UsageError("conversations: expected an engine with a tokenizer")
        return ChatTemplate(self.tokenizer)

    def submit_answer(
        self,
        conversation: Conversation,
        options: GenerationOptions | None = None,
        *,
        alternatives: int = 0,
        tools: bool = True,
        random: np.random.Generator | None = None,
    ) -> Request:
        """Queue a conversation for the assistant's answer.

        The answer is never empty, ends with the template's end tokens, and holds no special token that has no place in
        it. With `tools=False` no tool is called.
        """
        calls = ToolCalls(self.template, self.tool if tools else None)
        prompt = self.template.render_prompt(conversation).tolist()
        return self.submit(
            prompt,
            options,
            stop_tokens=calls.stop_tokens,
            forbidden_first=calls.stop_tokens,
            alternatives=alternatives,
            calls=calls,
            random=random,
        )

    def step(self) -> None:
        """Give every request that has a row its next token. Raises DivergedError for logits that are NaN or infinite.

        An interruption loses no request. The rows may then be half written, so all of them are cleared and read again.
        """
        try:
            self._step()
        except BaseException:
            self._rows.clear()
            self._waiting.extendleft(reversed(self._active))
            self._active.clear()
            raise

    def _step(self) -> None:
        self._remove_finished()
        self._waiting = deque(request for request in self._waiting if request.finish_reason is None)
        logits = []
        if self._active:
            logits.append(self._rows.step([request.window[-1] for request in self._active]))
        if joining := list(itertools.islice(self._waiting, self._most - len(self._active))):
            order, new = self._rows.join([request.window for request in joining])
            logits.append(new)
            self._active += (joining[place] for place in order)
            self._waiting = deque(itertools.islice(self._waiting, len(joining), None))
        if not logits:
            return
        for request, (token, logprob), alternatives in self._draw(logits):
            if token == NO_TOKEN:
                raise no_numbers()
            request.take(token, logprob, alternatives, self.model.context)
        self._remove_finished()

    def stream(self, request: Request) -> Steps:
        """Yield a request's steps as they come; other requests advance too. Closing the iterator cancels it."""
        try:
            while request.steps or request.finish_reason is None:
                if request.steps:
                    yield request.steps.popleft()
                else:
                    self.step()
        finally:
            request.cancel()

    def finish(self, requests: Iterable[Request], watch: Callable[[int], Any] = lambda done: None) -> None:
        """Step until all the requests have finished; `watch` is told how many have, before each step and at the end."""
        every = list(requests)
        going_on = every
        while going_on := [request for request in going_on if request.finish_reason is None]:
            watch(len(every) - len(going_on))
            self.step()
        watch(len(every))

    def _draw(self, logits: Sequence[Any]) -> Iterator[tuple[Request, Scored, tuple[Scored, ...]]]:
        """Yield each request with its token and its alternatives; nothing else of the logits leaves the device."""
        xp = array_module(logits[0])
        every = logits[0] if len(logits) == 1 else xp.concatenate(logits)
        known, tokens = log_probabilities(every), self._tokens(every)
        found = [_scored(known, xp.arange(len(tokens)), tokens)]
        for row, request in enumerate(self._active):
            if request.alternatives:
                found.append(_scored(known, row, xp.argsort(-known[row])[: request.alternatives]))
        numbers = to_host(xp.concatenate(found, axis=1)).tolist()
        scored = zip(map(int, numbers[0]), numbers[1], strict=True)
        drawn = list(itertools.islice(scored, len(self._active)))
        for request, of_token in zip(self._active, drawn, strict=True):
            yield request, of_token, tuple(itertools.islice(scored, request.alternatives))

    def _tokens(self, logits: Any) -> Any:
        """Return the next tokens (B,) for logits (B, V). Requests with equal sampling options are drawn together."""
        xp = array_module(logits)
        alike: dict[tuple[object, ...], list[int]] = {}
        tokens = xp.zeros(len(logits), np.int64)
        for row, request in enumerate(self._active):
            if request.forced:
                tokens[row] = request.forced[0]
            else:
                alike.setdefault(request.choice, []).append(row)
        for rows in alike.values():
            requests = [self._active[row] for row in rows]
            uniform = [request.random.random() for request in requests]
            allowed = forbid(logits[rows], requests[0].forbidden)
            tokens[rows] = draw_tokens(allowed, uniform, requests[0].options, [request.seen for request in requests])
        return tokens

    def _remove_finished(self) -> None:
        """Free the rows of finished requests. One with a full context is queued again with the later half of it."""
        for row in reversed(range(len(self._active))):
            request = self._active[row]
            full = len(request.window) > self.model.context
            if request.finish_reason is None and not full:
                continue
            self._rows.leave(row)
            self._active[row] = self._active[-1]
            self._active.pop()
            if request.finish_reason is None:
                request.window = request.window[-max(self.model.context // 2, 1) :]
                self._waiting.appendleft(request)


def _scored(known: Any, rows: Any, tokens: Any) -> Any:
    """Stack the tokens (N,) of some rows on their log-probabilities: (2, N)."""
    return array_module(known).stack([tokens.astype(np.float64), known[rows, tokens]])
