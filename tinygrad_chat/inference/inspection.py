"""Inspect a model as it reads: the log-probability of each token, and its attention weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tinygrad_chat import ops
from tinygrad_chat.autograd import Operation, watched_ops
from tinygrad_chat.autograd.sweep import Rule
from tinygrad_chat.backend import array_module, to_host
from tinygrad_chat.inference.sampler import log_probabilities
from tinygrad_chat.models.protocol import LanguageModel
from tinygrad_chat.ops.attention import attention_weights


class TokenScore(NamedTuple):
    """A token of a text, its log-probability given the tokens before it (None for the first), and the likeliest tokens
    at its position with theirs."""

    token: int
    logprob: float | None
    alternatives: tuple[tuple[int, float], ...] = ()


def token_scores(model: LanguageModel, tokens: Sequence[int], alternatives: int = 0) -> list[TokenScore]:
    """Return the log-probability of each token of a text no longer than the context, with the `alternatives`
    likeliest tokens at its position."""
    with np.errstate(all="ignore"):
        logits = model.token_logits(np.array([tokens]))[0]  # (T, V)
    found = [TokenScore(int(tokens[0]), None)]
    for row, token in zip(logits[:-1], tokens[1:], strict=True):
        known = log_probabilities(row)
        likeliest = array_module(known).argsort(-known)[:alternatives]
        pairs = zip(to_host(likeliest).tolist(), to_host(known[likeliest]).tolist(), strict=True)
        found.append(TokenScore(int(token), float(known[token]), tuple(pairs)))
    return found


def attention_at(model: LanguageModel, tokens: Sequence[int], index: int) -> list[np.ndarray]:
    """Return the attention weights of the token at `index`, for each layer (H, index + 1): one row per head, over that
    token and those before it. Each row sums to 1.

    Empty for a model without attention, and for one that computes with Values.
    """
    read: list[tuple[Any, Any, Mapping[str, Any]]] = []

    def watch(operation: Operation, inputs: Sequence[Any], options: Mapping[str, Any]) -> Any:
        if operation is ops.attention:
            read.append((inputs[0].data, inputs[1].data, options))
        return _unchanged

    with watched_ops(watch), np.errstate(all="ignore"):
        model.token_logits(np.array([tokens[: index + 1]]))
    weights = []
    for query, key, options in read:
        starts = options.get("document_starts")
        last = {**options, "document_starts": None if starts is None else starts[:, -1:]}
        found = attention_weights(query[:, -1:], key, **last)  # (1, G, H / G, 1, index + 1)
        weights.append(to_host(found).reshape(last["heads"], index + 1))
    return weights


def _unchanged(out: Any, rule: Rule) -> Rule:
    return rule
