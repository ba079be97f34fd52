"""The inference engine: several requests at a time, which join and leave between any two tokens.

What a request is answered does not depend on what else is asked: each has a row of the cache and random numbers of its
own, so a seed gives the same text in any company, as far as float32 products of another size round alike.
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
    """A model that answers up to `rows` requests at a time; others wait for their turn.

    Without a tokenizer there are tokens and no text. `tool` answers the calls of an assistant. Keys and values of
    requests that are over are kept, up to `prefix_bytes`, and a request that begins as one of them did computes only
    what is new. `cached` turns the key/value cache off.
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
        self._active: list[Request] = []  # a row each
        self._waiting: deque[Request] = deque()

    def submit(
        self,
        tokens: Sequence[int],
        options: GenerationOptions | None = None,
        *,
        stop_tokens: Collection[int] = (),
        rivals: int = 0,
        calls: ToolCalls | None = None,
        forbidden_first: Collection[int] = (),
        endless: bool = False,
        random: np.random.Generator | None = None,
    ) -> Request:
        """Ask for what comes after tokens, at least one and at most the context; it is computed by `step` or `stream`.

        It ends behind any of the `stop_tokens`. Each step tells the `rivals` likeliest tokens. `calls` follows the
        calls of a tool, by default the engine's, if there is one. None of `forbidden_first` comes first. Once the
        context is full the request is over or, `endless`, goes on from the later half of it, so that a full context
        need not be read again for every token. `random` is drawn from, by default the stream of the options' seed.
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
            rivals=min(rivals, self.model.vocabulary),
            forbidden_first=forbidden_first,
            endless=endless,
            calls=calls,
            text=TextStream(self.tokenizer, options.stops),
            random=rng(options.seed, "sampling") if random is None else random,
            unpenalized=self.tokenizer.special_tokens.values() if self.tokenizer else (),
        )
        self._waiting.append(request)
        return request

    @property
    def template(self) -> ChatTemplate:
        """The template of conversations. Raises UsageError where the tokenizer has none."""
        if self.tokenizer is None:
            raise UsageError("conversations: expected an engine with a tokenizer")
        return ChatTemplate(self.tokenizer)

    def submit_answer(
        self,
        conversation: Conversation,
        options: GenerationOptions | None = None,
        *,
        rivals: int = 0,
        tools: bool = True,
        random: np.random.Generator | None = None,
    ) -> Request:
        """Ask for the assistant's answer to a conversation: never empty, ended as answers are, without special tokens
        that have no place in it. Without `tools` none is called."""
        calls = ToolCalls(self.template, self.tool if tools else None)
        prompt = self.template.render_prompt(conversation).tolist()
        return self.submit(
            prompt,
            options,
            stop_tokens=calls.ends,
            forbidden_first=calls.ends,
            rivals=rivals,
            calls=calls,
            random=random,
        )

    def step(self) -> None:
        """Give every request its next token, if there is a row for it. Raises DivergedError for logits that are no
        numbers.

        Where it is interrupted, no request is lost: what the rows hold may be half written, so that all are read anew.
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
        for request, (token, logprob), rivals in self._draw(logits):
            if token == NO_TOKEN:
                raise no_numbers()
            request.take(token, logprob, rivals, self.model.context)
        self._remove_finished()

    def stream(self, request: Request) -> Steps:
        """Yield a request's steps as they come; the others advance with it. To close the iterator cancels it."""
        try:
            while request.steps or request.finish_reason is None:
                if request.steps:
                    yield request.steps.popleft()
                else:
                    self.step()
        finally:
            request.cancel()

    def finish(self, requests: Iterable[Request], watch: Callable[[int], Any] = lambda done: None) -> None:
        """Go on until all the requests are over; `watch` is told how many are, each time that one is."""
        every = list(requests)
        going_on = every
        while going_on := [request for request in going_on if request.finish_reason is None]:
            watch(len(every) - len(going_on))
            self.step()
        watch(len(every))

    def _draw(self, logits: Sequence[Any]) -> Iterator[tuple[Request, Scored, tuple[Scored, ...]]]:
        """Yield each request with its token and its rivals: all of the logits that leaves the device."""
        xp = array_module(logits[0])
        every = logits[0] if len(logits) == 1 else xp.concatenate(logits)
        known, tokens = log_probabilities(every), self._tokens(every)
        found = [_scored(known, xp.arange(len(tokens)), tokens)]
        for row, request in enumerate(self._active):
            if request.rivals:
                found.append(_scored(known, row, xp.argsort(-known[row])[: request.rivals]))
        numbers = to_host(xp.concatenate(found, axis=1)).tolist()
        scored = zip(map(int, numbers[0]), numbers[1], strict=True)
        drawn = list(itertools.islice(scored, len(self._active)))
        for request, of_token in zip(self._active, drawn, strict=True):
            yield request, of_token, tuple(itertools.islice(scored, request.rivals))

    def _tokens(self, logits: Any) -> Any:
        """Return the next token of each request beside logits (B, V): those that are drawn alike are drawn at once."""
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
        """Let the rows go of those that are over; whose context is full reads the later half of it anew."""
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
    """Return tokens (N,) of some rows, each above the logarithm of its probability, (2, N)."""
    return array_module(known).stack([tokens.astype(np.float64), known[rows, tokens]])
