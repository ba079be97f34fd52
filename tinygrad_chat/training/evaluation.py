"""Evaluation of a model on held-out text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from tinygrad_chat.backend import to_host
from tinygrad_chat.errors import DataError
from tinygrad_chat.models.protocol import Predictor
from tinygrad_chat.ops.cross_entropy import IGNORED
from tinygrad_chat.text.batches import Batch, batches_in_order, expect_known
from tinygrad_chat.text.conversations.windows import ConversationRows


@dataclass(frozen=True)
class Evaluation:
    """`loss` in nats per token, its `perplexity`, and bits per byte of text, which do not depend on the tokenizer.

    For a mixture, `sources` has the evaluation of each source.
    """

    loss: float
    perplexity: float
    bits_per_byte: float
    tokens: int
    bytes: int
    sources: Mapping[str, Evaluation] = field(default_factory=dict)


def evaluate_batches(model: Predictor, batches: Iterable[Batch], bytes_per_token: np.ndarray) -> Evaluation:
    """Evaluate the predictions of the targets of `batches`; targets of -1 are ignored.

    `bytes_per_token` (V,) says how much text each token stands for; the bytes predicted are the denominator of bits
    per byte. A token of no bytes, such as BOS, counts towards the loss but not towards bits per byte. Raises DataError
    if every target is ignored, as there is nothing to average.
    """
    nats, nats_of_text, predicted, size = 0.0, 0.0, 0, 0
    with np.errstate(all="ignore"):
        for inputs, targets in batches:
            expect_known((inputs, targets), len(bytes_per_token))
            losses, counted = to_host(model.token_losses(inputs, targets)), targets != IGNORED
            sizes = np.where(counted, bytes_per_token[targets], 0)
            nats += float(losses.sum(dtype=np.float64, where=counted))
            nats_of_text += float(losses.sum(dtype=np.float64, where=sizes > 0))
            predicted += int(counted.sum())
            size += int(sizes.sum())
    if not predicted:
        raise DataError("evaluation: expected at least one target that counts, received none; unmask some tokens")
    loss = nats / predicted
    return Evaluation(loss, _perplexity(loss), nats_of_text / math.log(2) / max(size, 1), predicted, size)


def _perplexity(loss: float) -> float:
    return math.exp(min(loss, 700))  # more would overflow a float


def mix_evaluations(sources: Mapping[str, Evaluation], shares: Sequence[Fraction]) -> Evaluation:
    """Return the evaluation of a mixture, each source weighted by its share of the tokens, not by tokens predicted."""
    weighted = [(float(share), each) for share, each in zip(shares, sources.values(), strict=True)]
    loss = sum(share * each.loss for share, each in weighted)
    bytes_a_token = [(share * each.bytes / each.tokens, each) for share, each in weighted]
    bits = sum(size * each.bits_per_byte for size, each in bytes_a_token)
    per_byte = bits / (sum(size for size, _ in bytes_a_token) or 1)
    tokens, size = (sum(getattr(each, name) for each in sources.values()) for name in ("tokens", "bytes"))
    return Evaluation(loss, _perplexity(loss), per_byte, tokens, size, sources)


HeldOut = np.ndarray | ConversationRows
"""What a model is evaluated on: the tokens of a text, or rows of conversations."""


def evaluate(model: Predictor, tokens: HeldOut, bytes_per_token: np.ndarray, *, batch_size: int) -> Evaluation:
    """Evaluate on each of `tokens` except the first, once, in consecutive windows of the model's context; or, in rows
    of conversations, on what the assistant says."""
    if isinstance(tokens, ConversationRows):
        return evaluate_batches(model, tokens.in_order(batch_size), bytes_per_token)
    batches = batches_in_order(tokens, batch_size=batch_size, context=model.context)
    return evaluate_batches(model, batches, bytes_per_token)
