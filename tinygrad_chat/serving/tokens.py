"""Tokenize and detokenize for clients that count tokens: as in vLLM's API, which lm-evaluation-harness uses."""

from __future__ import annotations

from typing import Any

from tinygrad_chat.serving.engine_requests import chat_template, chat_tokens, conversation, expect_model
from tinygrad_chat.serving.errors import ApiError
from tinygrad_chat.serving.model import Served
from tinygrad_chat.serving.requests import DetokenizeRequest, TokenizeRequest
from tinygrad_chat.text.conversations.jinja import chat_template as jinja_template


def tokenized(asked: TokenizeRequest, served: Served) -> dict[str, Any]:
    """Return the tokens of a text, or of a chat up to the beginning of its next answer."""
    expect_model(asked.model, served)
    if (asked.prompt is None) == (asked.messages is None):
        raise ApiError(400, "expected either a prompt or messages", param="prompt")
    if asked.messages is not None:
        said = conversation(asked.messages)
        answer = not said.ends_with_answer
        tokens = chat_tokens(said, chat_template(served), served.context, answer=answer)
    else:
        tokens = served.tokenizer.encode(asked.prompt or "").tolist()
        if asked.add_special_tokens is not False:
            tokens = [served.tokenizer.bos, *tokens]
    return {"count": len(tokens), "max_model_len": served.context, "tokens": tokens}


def detokenized(asked: DetokenizeRequest, served: Served) -> dict[str, Any]:
    """Return the text of tokens; special tokens have none."""
    expect_model(asked.model, served)
    if asked.tokens and max(asked.tokens) >= served.tokenizer.size:
        expected = f"tokens from 0 to {served.tokenizer.size - 1}"
        raise ApiError(400, f"tokens: expected {expected}, received {max(asked.tokens)}", param="tokens")
    return {"prompt": served.tokenizer.decode(asked.tokens)}


def tokenizer_info(served: Served) -> dict[str, Any]:
    """Describe the tokenizer: its special tokens and, for a model that can chat, its chat template."""
    names = {number: name for name, number in served.tokenizer.special_tokens.items()}
    bos = names[served.tokenizer.bos]
    info: dict[str, Any] = {
        "tokenizer_class": served.tokenizer.kind,
        "vocab_size": served.tokenizer.size,
        "model_max_length": served.context,
        "bos_token": bos,
        "eos_token": bos,  # it begins the next document, and so ends this one
        "pad_token": bos,
        "special_tokens": dict(served.tokenizer.special_tokens),
    }
    return info | ({"chat_template": jinja_template(served.template.turns)} if served.template else {})
