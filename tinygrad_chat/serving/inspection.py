"""Log-probabilities and attention of a chat, token by token, for the page that shows them."""

from __future__ import annotations

from typing import Any

from tinygrad_chat.inference.inspection import attention_at, token_scores
from tinygrad_chat.serving.engine_requests import chat_template, chat_tokens, conversation, expect_model, prompt_tokens
from tinygrad_chat.serving.errors import ApiError, context_exceeded
from tinygrad_chat.serving.model import Served
from tinygrad_chat.serving.openai import MIN_LOGPROB, token_name
from tinygrad_chat.serving.requests import LookRequest

ALTERNATIVES = 5


def inspected(asked: LookRequest, served: Served) -> dict[str, Any]:
    """Return the tokens of a chat or a text with their log-probabilities and alternatives, and one token's attention
    weights by layer and head."""
    expect_model(asked.model, served)
    tokens = _tokens(asked, served)
    index = len(tokens) - 1 if asked.index is None else asked.index
    if index >= len(tokens):
        raise ApiError(
            400, f"index: expected less than {len(tokens)}, the number of tokens, received {index}", param="index"
        )
    model, tokenizer = served.engine.model, served.tokenizer
    scores = token_scores(model, tokens, ALTERNATIVES if asked.top_logprobs is None else asked.top_logprobs)
    return {
        "tokens": [
            {
                "text": token_name(tokenizer, score.token),
                "logprob": None if score.logprob is None else max(score.logprob, MIN_LOGPROB),
                "alternatives": [
                    {"text": token_name(tokenizer, token), "logprob": max(logprob, MIN_LOGPROB)}
                    for token, logprob in score.alternatives
                ],
            }
            for score in scores
        ],
        "index": index,
        "attention": [layer.round(6).tolist() for layer in attention_at(model, tokens, index)],
    }


def _tokens(asked: LookRequest, served: Served) -> list[int]:
    if (asked.prompt is None) == (asked.messages is None):
        raise ApiError(400, "expected either a prompt or messages", param="messages")
    if asked.messages is None:
        return prompt_tokens(asked.prompt, served)
    said = conversation(asked.messages)
    tokens = chat_tokens(said, chat_template(served), served.context, answer=not said.ends_with_answer)
    if len(tokens) > served.context:
        raise context_exceeded(len(tokens), served.context, "messages")
    return tokens
