"""Request schemas: dataclasses by which `schema.py` validates requests, and from which /openapi.json is written.

Other fields of OpenAI's API have no effect here. One that would change the answer is declared `unsupported`, and
refused by name; the rest (`user`, `metadata`, `store`, `service_tier`, ...) are ignored.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from tinygrad_chat.schema import OPTIONAL, Bounds, Count
from tinygrad_chat.serving.errors import ApiError

MAX_STOPS = 4
CALCULATOR = "calculator"
"""The only tool. The server runs it; clients see its calls and results, and need not answer them."""


def optional(about: str) -> Any:
    """Return a field that may be missing or null: then None."""
    return dataclasses.field(default=None, metadata={**OPTIONAL, "about": about})


def unsupported(*harmless: Any) -> Any:
    """Return a field that is refused by name, except for `harmless` values, which change nothing."""
    return dataclasses.field(default=None, metadata={**OPTIONAL, "harmless": (None, *harmless)})


def refuse_unsupported(asked: Any) -> None:
    """Raise ApiError for the first unsupported field that would change the answer."""
    for each in dataclasses.fields(asked):
        harmless = each.metadata.get("harmless")
        if harmless is not None and getattr(asked, each.name) not in harmless:
            raise ApiError(
                400, f"{each.name}: is not supported here; remove it", param=each.name, code="unsupported_parameter"
            )


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """How an answer is streamed."""

    include_usage: bool | None = optional("end with a chunk with the token counts")


@dataclass(frozen=True, kw_only=True)
class Generation:
    """The fields that chats and completions share."""

    model: str | None = optional("the model's id, or tgc")
    n: Annotated[int, Bounds(minimum=1, maximum=128)] | None = optional("how many answers (1)")
    max_tokens: Annotated[int, Bounds(minimum=0)] | None = optional("maximum tokens of an answer")
    temperature: Annotated[float, Bounds(minimum=0, maximum=2)] | None = optional(
        "below 1 more careful, above 1 more varied, 0 always the likeliest token"
    )
    top_p: Annotated[float, Bounds(minimum=0, maximum=1)] | None = optional(
        "choose among the likeliest tokens that together have this probability"
    )
    top_k: Annotated[int, Bounds(minimum=1)] | None = optional(
        "choose among this many likeliest tokens; not in OpenAI's API"
    )
    min_p: Annotated[float, Bounds(minimum=0, maximum=1)] | None = optional(
        "choose among tokens with at least this fraction of the likeliest token's probability; not in OpenAI's API"
    )
    repetition_penalty: Annotated[float, Bounds(minimum=1)] | None = optional(
        "above 1, tokens that occurred before are less likely; not in OpenAI's API"
    )
    stop: str | list[str] | None = optional(f"up to {MAX_STOPS} texts before which an answer ends")
    seed: int | None = optional("the same answer again for the same seed")
    stream: bool | None = optional("send the answer as it comes, as server-sent events")
    stream_options: StreamOptions | None = optional("how it is streamed")
    return_token_ids: bool | None = optional("return the ids of prompt and answer tokens, as in vLLM")
    frequency_penalty: Any = unsupported(0)
    presence_penalty: Any = unsupported(0)
    logit_bias: Any = unsupported({})

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings. Raises ApiError for more than MAX_STOPS, and for an empty one."""
        stops = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        if len(stops) > MAX_STOPS or not all(stops):
            raise ApiError(400, f"stop: expected up to {MAX_STOPS} texts, none of them empty", param="stop")
        return stops


@dataclass(frozen=True, kw_only=True)
class ContentPart:
    """A part of a message: text or, in an assistant's message, a call of its tool (`python`) or the result."""

    type: Literal["text", "python", "python_output"]
    text: str


@dataclass(frozen=True, kw_only=True)
class ChatMessage:
    """One message of a chat."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[ContentPart] | None = optional("what is said")
    tool_calls: Any = unsupported([])
    function_call: Any = unsupported()


@dataclass(frozen=True, kw_only=True)
class ChatRequest(Generation):
    """POST /v1/chat/completions."""

    messages: list[ChatMessage]
    max_completion_tokens: Annotated[int, Bounds(minimum=1)] | None = optional("maximum tokens of an answer")
    logprobs: bool | None = optional("say how likely each token was")
    top_logprobs: Annotated[int, Bounds(minimum=0, maximum=20)] | None = optional(
        "and this many likeliest alternatives"
    )
    tools: list[dict[str, Any]] | None = optional(f"only {CALCULATOR}, which the model has anyway")
    tool_choice: str | dict[str, Any] | None = optional("none: the model does not use its calculator")
    functions: Any = unsupported([])
    function_call: Any = unsupported("none", "auto")
    response_format: Any = unsupported({"type": "text"})
    modalities: Any = unsupported(["text"])
    audio: Any = unsupported()
    web_search_options: Any = unsupported()


@dataclass(frozen=True, kw_only=True)
class CompletionRequest(Generation):
    """POST /v1/completions."""

    prompt: str | list[str] | list[int] | list[list[int]] | None = optional(
        "a text, tokens, or several of either; without one a new document begins"
    )
    echo: bool | None = optional("begin each answer with its prompt")
    logprobs: Annotated[int, Bounds(minimum=0, maximum=20)] | None = optional(
        "say how likely each token was, and this many likeliest alternatives"
    )
    suffix: Any = unsupported("")
    best_of: Any = unsupported(1)


@dataclass(frozen=True, kw_only=True)
class TokenizeRequest:
    """POST /tokenize: a text, or messages as the model reads them."""

    model: str | None = optional("the model's id, or tgc")
    prompt: str | None = optional("a text")
    messages: list[ChatMessage] | None = optional("or messages, after which an answer is to begin")
    add_special_tokens: bool | None = optional("of a text: put the token first with which documents begin (true)")


@dataclass(frozen=True, kw_only=True)
class DetokenizeRequest:
    """POST /detokenize."""

    model: str | None = optional("the model's id, or tgc")
    tokens: list[Count]


@dataclass(frozen=True, kw_only=True)
class LookRequest:
    """POST /v1/look: log-probabilities and alternatives of the tokens of a chat or a text, and the attention of one."""

    model: str | None = optional("the model's id, or tgc")
    messages: list[ChatMessage] | None = optional("a chat")
    prompt: str | list[int] | None = optional("or a text, or tokens")
    index: Count | None = optional("the token whose attention is wanted; by default the last")
    top_logprobs: Annotated[int, Bounds(minimum=0, maximum=20)] | None = optional("alternatives of each token (5)")
