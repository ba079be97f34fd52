"""Answers as OpenAI's JSON: whole, or chunk by chunk as they come."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from tinygrad_chat.inference.request import Request, TokenStep
from tinygrad_chat.serving.model import Served
from tinygrad_chat.serving.requests import ChatRequest, CompletionRequest, Generation
from tinygrad_chat.text.conversations import TEXT
from tinygrad_chat.text.tokenizers import Tokenizer

MIN_LOGPROB = -9999.0
"""What OpenAI sends for a token of probability 0: JSON has no infinity."""

Json = dict[str, Any]
NOTHING: Mapping[str, Any] = {}
Scores = Sequence[tuple[int, float | None, Sequence[tuple[int, float]]]]
"""Tokens, each with its log-probability (None for the first token of a text) and its alternatives."""


class Format(Protocol):
    """The JSON of one request's answers. `index` is the number of an answer."""

    def first(self, index: int) -> Json | None:
        """Return the chunk before the answer's first token, None if there is none."""
        ...

    def step(self, index: int, step: TokenStep) -> Json | None:
        """Return the chunk of a token; None if it has nothing to show."""
        ...

    def last(self, index: int, reason: str) -> Json:
        """Return the chunk with the finish reason."""
        ...

    def usage(self, usage: Json) -> Json:
        """Return the chunk with the token counts."""
        ...

    def whole(self, answers: Sequence[Sequence[TokenStep]], reasons: Sequence[str], usage: Json) -> Json:
        """Return all answers as one response."""
        ...


class _TokenIds:
    """The ids of prompt and answer tokens, if requested: they cannot always be recovered from the text."""

    def __init__(self, asked: Generation, prompts: Sequence[Sequence[int]]) -> None:
        self._prompts = prompts if asked.return_token_ids else None

    def read(self, index: int) -> Json:
        """Return the field with the token ids of an answer's prompt, if requested."""
        return {} if self._prompts is None else {"prompt_token_ids": list(self._prompts[index])}

    def written(self, steps: Sequence[TokenStep]) -> Json:
        """Return the field with the token ids of some steps, if requested."""
        return {} if self._prompts is None else {"token_ids": [step.token for step in steps]}


class ChatFormat:
    """The JSON of chat answers to `prompts`.

    In addition to OpenAI's fields, a message has `parts` if the model has called its calculator, and a chunk has `part`
    for a piece of a call or a result: `{"type": "python", "text": "2+3"}`.
    """

    def __init__(self, asked: ChatRequest, served: Served, prompts: Sequence[Sequence[int]]) -> None:
        self._tokenizer, self._ids = served.tokenizer, _TokenIds(asked, prompts)
        self._logprobs = bool(asked.logprobs)
        self._head = _head("chatcmpl", "chat.completion", served)
        self._chunk_head = {**self._head, "object": "chat.completion.chunk"}

    def first(self, index: int) -> Json:
        """Return the chunk with the assistant's role."""
        return self._chunk(index, {"role": "assistant", "content": ""}, ids=self._ids.read(index))

    def step(self, index: int, step: TokenStep) -> Json | None:
        """Return the chunk of a token; None if it has nothing to show."""
        ids, scores = self._ids.written([step]), self._scores([step] if step.kind == TEXT else [])
        if not (step.text or scores or ids):
            return None
        calls = step.kind != TEXT and step.text
        delta = {"part": {"type": step.kind, "text": step.text}} if calls else {"content": step.text}
        return self._chunk(index, delta, scores or None, ids=ids)

    def last(self, index: int, reason: str) -> Json:
        """Return the chunk with the finish reason."""
        return self._chunk(index, {}, reason=reason)

    def usage(self, usage: Json) -> Json:
        """Return the chunk with the token counts."""
        return {**self._chunk_head, "choices": [], "usage": usage}

    def whole(self, answers: Sequence[Sequence[TokenStep]], reasons: Sequence[str], usage: Json) -> Json:
        """Return all answers as one response."""
        choices = [
            {
                "index": index,
                "message": self._message(steps),
                "logprobs": self._logprobs_of(self._scores(steps)),
                "finish_reason": reason,
                **self._ids.read(index),
                **self._ids.written(steps),
            }
            for index, (steps, reason) in enumerate(zip(answers, reasons, strict=True))
        ]
        return {**self._head, "choices": choices, "usage": usage}

    def _chunk(
        self,
        index: int,
        delta: Json,
        scores: list[Json] | None = None,
        *,
        reason: str | None = None,
        ids: Mapping[str, Any] = NOTHING,
    ) -> Json:
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": scores and self._logprobs_of(scores),
            "finish_reason": reason,
            **ids,
        }
        return {**self._chunk_head, "choices": [choice]}

    def _message(self, steps: Sequence[TokenStep]) -> Json:
        message: Json = {"role": "assistant", "content": "", "refusal": None}
        parts: list[dict[str, str]] = []
        for step in steps:
            if not parts or parts[-1]["type"] != step.kind:
                parts.append({"type": step.kind, "text": ""})
            parts[-1]["text"] += step.text
        message["content"] = "".join(part["text"] for part in parts if part["type"] == TEXT)
        if any(part["type"] != TEXT for part in parts):
            message["parts"] = [part for part in parts if part["text"]]
        return message

    def _scores(self, steps: Sequence[TokenStep]) -> list[Json]:
        if not self._logprobs:
            return []
        special = self._tokenizer.special_tokens.values()
        shown = (step for step in steps if step.kind == TEXT and step.token not in special)
        return [
            {
                **self._scored(step.token, step.logprob),
                "top_logprobs": [self._scored(*alternative) for alternative in step.alternatives],
            }
            for step in shown
        ]

    def _logprobs_of(self, scores: list[Json]) -> Json | None:
        return {"content": scores, "refusal": None} if self._logprobs else None

    def _scored(self, token: int, logprob: float) -> Json:
        content = self._tokenizer.decode_bytes([token])
        return {
            "token": token_name(self._tokenizer, token),
            "logprob": max(logprob, MIN_LOGPROB),
            "bytes": list(content),
        }


class CompletionFormat:
    """The JSON of completions of `prompts`. `echoed` has each prompt's text and, if requested, its tokens' scores, for
    answers that begin with their prompt."""

    def __init__(
        self,
        asked: CompletionRequest,
        served: Served,
        prompts: Sequence[Sequence[int]],
        echoed: Sequence[tuple[str, Scores]] = (),
    ) -> None:
        self._tokenizer, self._alternatives, self._echoed = served.tokenizer, asked.logprobs, echoed
        self._ids = _TokenIds(asked, prompts)
        self._head = _head("cmpl", "text_completion", served)
        self._written: dict[int, int] = {}
        """The length of each text so far, in characters."""

    def first(self, index: int) -> Json | None:
        """Return the chunk with the prompt, as text or tokens; None if neither was requested."""
        ids = self._ids.read(index)
        if not (self._echoed or ids):
            return None
        text, scores = self._echoed[index] if self._echoed else ("", ())
        return self._chunk(index, text, self._logprobs(index, scores) if self._echoed else None, ids=ids)

    def step(self, index: int, step: TokenStep) -> Json | None:
        """Return the chunk of a token; None if it has nothing to show."""
        ids, scores = self._ids.written([step]), self._logprobs(index, [(step.token, step.logprob, step.alternatives)])
        return self._chunk(index, step.text, scores, ids=ids) if step.text or scores or ids else None

    def last(self, index: int, reason: str) -> Json:
        """Return the chunk with the finish reason."""
        return self._chunk(index, "", None, reason=reason)

    def usage(self, usage: Json) -> Json:
        """Return the chunk with the token counts."""
        return {**self._head, "choices": [], "usage": usage}

    def whole(self, answers: Sequence[Sequence[TokenStep]], reasons: Sequence[str], usage: Json) -> Json:
        """Return all texts as one response."""
        choices = []
        for index, (steps, reason) in enumerate(zip(answers, reasons, strict=True)):
            text, scores = self._echoed[index] if self._echoed else ("", ())
            found = [*scores, *((step.token, step.logprob, step.alternatives) for step in steps)]
            text += "".join(step.text for step in steps)
            choice = {"index": index, "text": text, "logprobs": self._logprobs(index, found), "finish_reason": reason}
            choices.append({**choice, **self._ids.read(index), **self._ids.written(steps)})
        return {**self._head, "choices": choices, "usage": usage}

    def _chunk(
        self,
        index: int,
        text: str,
        logprobs: Json | None,
        *,
        reason: str | None = None,
        ids: Mapping[str, Any] = NOTHING,
    ) -> Json:
        choice = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason, **ids}
        return {**self._head, "choices": [choice]}

    def _logprobs(self, index: int, scores: Scores) -> Json | None:
        if self._alternatives is None:
            return None
        offsets, at = [], self._written.get(index, 0)
        for token, _, _ in scores:
            offsets.append(at)
            at += len(self._tokenizer.decode([token]))
        self._written[index] = at
        return {
            "tokens": [token_name(self._tokenizer, token) for token, _, _ in scores],
            "token_logprobs": [None if logprob is None else max(logprob, MIN_LOGPROB) for _, logprob, _ in scores],
            "top_logprobs": [self._top(logprob, alternatives) for _, logprob, alternatives in scores]
            if self._alternatives
            else None,
            "text_offset": offsets,
        }

    def _top(self, logprob: float | None, alternatives: Sequence[tuple[int, float]]) -> dict[str, float] | None:
        if logprob is None:
            return None
        return {token_name(self._tokenizer, token): max(each, MIN_LOGPROB) for token, each in alternatives}


def token_name(tokenizer: Tokenizer, token: int) -> str:
    """Return a token as OpenAI names it: its text, or its bytes if they are part of a character. A special token has
    its own name."""
    content = tokenizer.decode_bytes([token])
    if not content:
        names = {number: name for name, number in tokenizer.special_tokens.items()}
        return names.get(token, "")
    try:
        return content.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)


def usage_of(prompts: Iterable[int], requests: Sequence[Request]) -> Json:
    """Return the token counts of a response, given the lengths of its prompts."""
    read, written = sum(prompts), sum(len(request.tokens) for request in requests)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def models(served: Served) -> Json:
    """Return the list of models: the one that is served."""
    return {"object": "list", "data": [model(served)]}


def model(served: Served) -> Json:
    """Return the description of a model; the fields after `owned_by` are not OpenAI's."""
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "tinygrad_chat",
        "max_model_len": served.context,
        "chats": served.template is not None,
        "step": served.step,
    }


def _head(prefix: str, kind: str, served: Served) -> Json:
    return {
        "id": f"{prefix}-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": served.name,
        "system_fingerprint": f"step-{served.step}",
    }
