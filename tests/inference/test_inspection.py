"""Looking inside: the weights that are shown are those with which the op takes its mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.inference.test_engine import TOKENS, VARIANTS, restless
from tinygrad_chat import ops
from tinygrad_chat.autograd import watched_ops
from tinygrad_chat.inference.inspection import attention_at, token_scores
from tinygrad_chat.models.options import ModelOptions
from tinygrad_chat.models.scalar import ScalarModel

READ = [2, 0, 3, 1, 2, 4, 4, 0, 3]  # 2 begins documents


def outputs_of(model: Any, tokens: list[int]) -> list[tuple[Any, Any]]:
    """What each layer's attention gives, (T, H D), and the values (T, G D) that it takes the mean of."""
    found: list[tuple[Any, Any]] = []

    def watch(operation: Any, inputs: Any, options: Any) -> Any:
        def seen(out: Any, rule: Any) -> Any:
            if operation is ops.attention:
                found.append((np.array(out[0]), np.array(inputs[2].data[0])))
            return rule

        return seen

    with watched_ops(watch):
        model.token_logits(np.array([tokens]))
    return found


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("index", [0, 5, len(READ) - 1])
def test_weights_times_values_are_what_the_op_gives(name: str, index: int):
    model = restless(VARIANTS[name])
    weights = attention_at(model, READ, index)
    outputs = outputs_of(model, READ)
    assert len(weights) == len(outputs) == model.options.layers
    for layer, (out, values) in zip(weights, outputs, strict=True):
        heads, width = len(layer), out.shape[1] // len(layer)
        shared = heads * width // values.shape[1]
        by_head = values.reshape(len(READ), -1, width)[: index + 1]
        mean = [layer[head] @ by_head[:, head // shared] for head in range(heads)]
        np.testing.assert_allclose(np.concatenate(mean), out[index], rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(layer.sum(axis=1), 1)


@pytest.mark.parametrize("name", VARIANTS)
def test_scores_are_what_the_model_loses(name: str):
    model = restless(VARIANTS[name])
    scores = token_scores(model, READ, alternatives=TOKENS)
    losses = model.token_losses(np.array([READ[:-1]]), np.array([READ[1:]]))[0]
    assert scores[0] == (READ[0], None, ())
    np.testing.assert_allclose(np.array([score.logprob for score in scores[1:]], float), -losses, rtol=1e-9)
    for score in scores[1:]:
        assert dict(score.alternatives)[score.token] == pytest.approx(score.logprob)
        assert sorted(dict(score.alternatives).values(), reverse=True) == [logprob for _, logprob in score.alternatives]
        assert np.exp([logprob for _, logprob in score.alternatives]).sum() == pytest.approx(1)


def test_a_model_of_values_shows_no_attention():
    model = ScalarModel(3, ModelOptions(layers=1, heads=1, width=2, context=4))
    assert attention_at(model, [0, 1], 1) == []
