"""From API requests to engine requests: runs in the worker's thread, with the model that answers."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Iterator, Sequence

import numpy as np

from tinygrad_chat.errors import TinygradChatError
from tinygrad_chat.inference.calls import ToolCalls
from tinygrad_chat.inference.options import CHAT_TEMPERATURE, GenerationOptions
from tinygrad_chat.inference.request import Request
from tinygrad_chat.option import LARGEST
from tinygrad_chat.runs.sampling import Sampling
from tinygrad_chat.seeds import rng
from tinygrad_chat.serving.errors import ApiError, context_exceeded
from tinygrad_chat.serving.model import Served
from tinygrad_chat.serving.requests import CALCULATOR, ChatMessage, ChatRequest, CompletionRequest, Generation
from tinygrad_chat.text.conversations import TEXT, ChatTemplate, Conversation, Message, Part
from tinygrad_chat.text.conversations.conversation import ASSISTANT, SYSTEM

ALIAS = "tgc"
"""A name for whichever model is served, for clients that do not want to look it up."""
SMALLEST_TOP_P = 1e-9
"""A `top_p` so small that only the likeliest token is kept."""
COMPLETION_TOKENS = 16  # OpenAI's default for completions
COMPLETION_TEMPERATURE = 1.0  # likewise
DRAWING = tuple(each.name for each in dataclasses.fields(Sampling))


def expect_model(name: str | None, served: Served) -> None:
    """Raise ApiError if the named model is not served."""
    if name not in (None, "", ALIAS, served.name):
        message = f"the model {name!r:.80} is not here; this server has {served.name}, also called {ALIAS}"
        raise ApiError(404, message, param="model", code="model_not_found")


def ask_chat(asked: ChatRequest, served: Served) -> list[Request]:
    """Submit a chat `n` times: once for each answer."""
    expect_model(asked.model, served)
    tools = _wants_tools(asked)
    template = chat_template(served)
    said = conversation(asked.messages)
    if said.ends_with_answer:
        raise ApiError(400, "messages: expected a user message last", param="messages")
    prompt = chat_tokens(said, template, served.context, answer=True)
    if len(prompt) > served.context:
        raise context_exceeded(len(prompt), served.context, "messages")
    most = asked.max_completion_tokens or asked.max_tokens or served.context
    options = _options(asked, served, most, CHAT_TEMPERATURE)
    alternatives = asked.top_logprobs or 0
    if alternatives and not asked.logprobs:
        raise ApiError(400, "top_logprobs: has no effect without logprobs", param="top_logprobs")
    return [
        served.engine.submit_answer(said, options, alternatives=alternatives, tools=tools, random=random)
        for random in _random_numbers(options.seed, asked.n or 1)
    ]


def ask_completion(asked: CompletionRequest, prompts: Sequence[Sequence[int]], served: Served) -> list[Request]:
    """Submit each prompt `n` times. No tool is called in a completion."""
    most = COMPLETION_TOKENS if asked.max_tokens is None else asked.max_tokens
    options = _options(asked, served, most, COMPLETION_TEMPERATURE)
    numbers = _random_numbers(options.seed, len(prompts) * (asked.n or 1))
    return [
        served.engine.submit(
            prompt,
            options,
            stop_tokens=served.tokenizer.stop_tokens,
            alternatives=asked.logprobs or 0,
            calls=ToolCalls(served.template, None) if served.template else None,
            random=next(numbers),
        )
        for prompt in prompts
        for _ in range(asked.n or 1)
    ]


def completion_prompts(asked: CompletionRequest, served: Served) -> list[list[int]]:
    """Return the prompts as tokens: a text gets BOS in front, and tokens are taken as they are."""
    expect_model(asked.model, served)
    given = "" if asked.prompt is None else asked.prompt
    several = given if isinstance(given, list) and not (given and isinstance(given[0], int)) else [given]
    prompts = [prompt_tokens(each, served) for each in several]
    if not prompts:
        raise ApiError(400, "prompt: expected at least one, received none", param="prompt")
    return prompts


def prompt_tokens(prompt: object, served: Served) -> list[int]:
    """Return a prompt as tokens: a text gets BOS in front. Raises ApiError for what the model cannot read."""
    if isinstance(prompt, str):
        expect_readable(len(prompt.encode()), served, "prompt")
        tokens = [served.tokenizer.bos, *served.tokenizer.encode(prompt).tolist()]
    else:
        assert isinstance(prompt, list)
        tokens = prompt
        if not tokens or not 0 <= min(tokens) <= max(tokens) < served.tokenizer.size:
            expected = f"at least one token from 0 to {served.tokenizer.size - 1}"
            raise ApiError(400, f"prompt: expected {expected}, received others", param="prompt")
    if len(tokens) > served.context:
        raise context_exceeded(len(tokens), served.context, "prompt")
    return tokens


def expect_readable(size: int, served: Served, param: str) -> None:
    """Raise ApiError if a text of `size` bytes exceeds the context however it is tokenized.

    Otherwise a client could make the server encode a text of any length, only to refuse it.
    """
    longest = int(served.tokenizer.bytes_per_token().max())
    if size > served.context * longest:
        raise context_exceeded(-(-size // longest), served.context, param)


def chat_template(served: Served) -> ChatTemplate:
    """Return the model's chat template. Raises ApiError if it cannot chat."""
    if served.template is None:
        raise ApiError(
            400,
            f"{served.name} cannot chat: its tokenizer ({served.tokenizer.kind}) has no tokens for it; "
            "/v1/completions continues a text",
            param="model",
        )
    return served.template


def chat_tokens(said: Conversation, template: ChatTemplate, context: int, *, answer: bool) -> list[int]:
    """Render a conversation as tokens; with `answer`, up to where the next answer begins. Raises ApiError for one whose
    bytes alone exceed the context."""
    longest = int(template.tokenizer.bytes_per_token().max())
    size = sum(len(part.text.encode()) for message in said.messages for part in message.parts)
    if size > context * longest:
        raise context_exceeded(-(-size // longest), context, "messages")
    return (template.render_prompt(said) if answer else template.render(said).tokens).tolist()


def conversation(messages: Sequence[ChatMessage]) -> Conversation:
    """Return messages as a conversation. Adjacent messages of one role are merged with a blank line between them, and
    empty answers, stopped before their first word, are left out."""
    said: list[Message] = []
    for number, message in enumerate(messages):
        if message.tool_calls or message.function_call:
            param = f"messages[{number}].tool_calls"
            raise ApiError(400, f"{param}: the model has no tools but its own; remove it", param=param)
        role = SYSTEM if message.role == "developer" else message.role
        parts = _parts(message)
        if role == ASSISTANT and not any(part.text for part in parts):
            continue
        try:
            if said and said[-1].role == role:
                said[-1] = Message(role, (*said[-1].parts, Part(TEXT, "\n\n"), *parts))
            else:
                said.append(Message(role, parts))
        except TinygradChatError as error:
            param = f"messages[{number}]"
            raise ApiError(400, f"{param}: {error}", param=param) from error
    return Conversation(tuple(said))


def _parts(message: ChatMessage) -> tuple[Part, ...]:
    if isinstance(message.content, list):
        return tuple(Part(part.type, part.text) for part in message.content)
    return (Part(TEXT, message.content or ""),)


def _wants_tools(asked: ChatRequest) -> bool:
    """Return whether the calculator may be used. Raises ApiError for a tool that the model does not have."""
    for tool in asked.tools or []:
        described = tool.get("function")
        name = described.get("name") if isinstance(described, dict) else None
        if name != CALCULATOR:
            raise ApiError(
                400,
                f"tools: the model knows one tool, {CALCULATOR}, which this server runs itself; remove tools",
                param="tools",
                code="unsupported_parameter",
            )
    if asked.tool_choice not in (None, "auto", "none"):
        raise ApiError(400, "tool_choice: expected auto or none, received something else", param="tool_choice")
    return asked.tool_choice != "none"


def _options(asked: Generation, served: Served, most: int, temperature: float) -> GenerationOptions:
    """Return the options of a request. Its own come first, then the model's recommended ones, then `temperature`."""
    said = {name: value for name in DRAWING if (value := getattr(asked, name)) is not None}
    drawing = {"temperature": temperature, "top_p": None, "min_p": None, **served.sampling.settings(), **said}
    drawing["top_p"] = drawing["top_p"] if drawing["top_p"] is None else max(drawing["top_p"], SMALLEST_TOP_P)
    drawing["min_p"] = drawing["min_p"] or None  # 0 rules nothing out
    return GenerationOptions(
        max_new_tokens=max(most, 1),
        **drawing,
        stop=asked.stops or None,
        seed=secrets.randbelow(LARGEST) if asked.seed is None else asked.seed % LARGEST,
    )


def _random_numbers(seed: int, count: int) -> Iterator[np.random.Generator]:
    """Yield each answer's random generator, seeded as for the samples of `tgc sample`."""
    return (rng(seed, "sampling", number) for number in range(count))
