"""How good a model is on text that it was not trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tinygrad_chat.autograd import no_grad
from tinygrad_chat.models.protocol import LanguageModel
from tinygrad_chat.text.batches import batches_in_order


@dataclass(frozen=True)
class Evaluation:
    """`loss` in nats a token, its `perplexity`, and bits for each byte of the text, which no tokenizer can flatter."""

    loss: float
    perplexity: float
    bits_per_byte: float
    tokens: int
    bytes: int


def evaluate(model: LanguageModel, tokens: np.ndarray, bytes_per_token: np.ndarray, *, batch_size: int) -> Evaluation:
    """Predict each of `tokens` but the first once, in windows of the model's context, in order.

    `bytes_per_token` (V,) says how much text each token stands for; the bytes predicted are the denominator.
    """
    nats, predicted, size = 0.0, 0, 0
    with no_grad(), np.errstate(all="ignore"):
        for inputs, targets in batches_in_order(tokens, batch_size=batch_size, context=model.context):
            nats += model.loss(inputs, targets).item() * targets.size
            predicted += targets.size
            size += int(bytes_per_token[targets].sum())
    loss = nats / predicted
    perplexity = math.exp(min(loss, 700))  # beyond that a float could not hold it
    return Evaluation(loss, perplexity, nats / math.log(2) / max(size, 1), predicted, size)
