"""A model of one's own, as a user writes it: no more than its layers, and what training and sampling ask for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinygrad_chat import GPT, ModelOptions, Tensor, no_grad, ops
from tinygrad_chat.nn import Embedding, LayerNorm, Linear, Module
from tinygrad_chat.ops.cross_entropy import token_losses
from tinygrad_chat.optim import AdamW
from tinygrad_chat.training.evaluation import evaluate
from tinygrad_chat.training.step import accumulate_gradient

V, T = 5, 3
cycle = np.arange(4 * T + 1) % V
batch = cycle[:-1].reshape(4, T), cycle[1:].reshape(4, T)


class MLP(Module):
    """Predicts each token from the one before it (Bengio et al., 2003, with a context of one)."""

    vocabulary, context = V, T

    def __init__(self, random: np.random.Generator) -> None:
        self.embedding = Embedding(V, 4, random=random, std=1.0)
        self.layers = [Linear(4, 8, random=random, std=0.5), Linear(8, V, random=random, std=0.5)]

    def logits(self, tokens: Any) -> Tensor:
        hidden, out = self.layers
        return out(ops.tanh(hidden(self.embedding(tokens))))

    def loss(self, tokens: Any, targets: Any, **options: Any) -> Tensor:
        return ops.cross_entropy(self.logits(tokens), targets)

    def token_losses(self, tokens: Any, targets: Any) -> Any:
        with no_grad():
            return token_losses(self.logits(tokens).data, targets)


def test_it_trains_and_is_evaluated_as_ours_are():
    model: Any = MLP(np.random.default_rng(0))
    optimizer = AdamW(model.parameters(), weight_decay=0.0)
    for _ in range(200):
        accumulate_gradient(model, batch, micro_batches=2)
        optimizer.step(0.05)
    assert evaluate(model, cycle, np.ones(V, int), batch_size=2).loss < 0.05


def test_parameters_are_gathered_once_and_not_before_they_are_asked_for():
    model = MLP(np.random.default_rng(0))
    before = {name: tensor.data.copy() for name, tensor in model.named_parameters()}
    model.loss(*batch).backward()
    first = {name: np.array(tensor.grad) for name, tensor in model.named_parameters()}
    parameters = model.parameters()
    assert model.parameters() is parameters
    for name, array in before.items():
        np.testing.assert_array_equal(parameters[name].data, array)
        np.testing.assert_array_equal(parameters[name].grad, first[name])  # a gradient from before goes along
    model.loss(*batch).backward()
    np.testing.assert_allclose(parameters.gradient, 2 * np.concatenate([first[name].ravel() for name in parameters]))


def test_a_layer_of_tensors_that_exist_draws_nothing():
    weight = Tensor(np.ones((2, 3)))
    layer = Linear.of(weight=weight, bias=None)
    assert layer.weight is weight
    np.testing.assert_array_equal(layer(Tensor(np.ones((1, 3)))).data, [[3, 3]])


def test_a_model_shows_its_parts_equal_ones_once_with_numbers_that_add_up_to_the_total():
    assert repr(GPT(7, ModelOptions(layers=3, heads=2, width=4, context=6, window=2))) == (
        """
GPT
  token_embedding: Embedding(weight 7 x 4)          28
  position_embedding: Embedding(weight 6 x 4)       24
  blocks: 3 x Block                            3 x 200
    attention_norm: LayerNorm(gain 4)                4
    attention: Attention                            64
      query: Linear(weight 4 x 4)                   16
      key: Linear(weight 4 x 4)                     16
      value: Linear(weight 4 x 4)                   16
      output: Linear(weight 4 x 4)                  16
    feed_forward_norm: LayerNorm(gain 4)             4
    feed_forward: FeedForward                      128
      expand: Linear(weight 16 x 4)                 64
      contract: Linear(weight 4 x 16)               64
  final_norm: LayerNorm(gain 4)                      4
  head: Linear(weight 7 x 4, tied)
parameters                                         656
""".strip()
    )


@pytest.mark.parametrize("layers", [4, 5])
def test_parts_that_differ_are_shown_each_with_their_indices(layers: int):
    shown = repr(GPT(7, ModelOptions(layers=layers, heads=2, width=4, value_embeddings=True)))
    with_gate, without = ("1,3", "0,2") if layers == 4 else ("0,2,4", "1,3")
    assert f"blocks.{with_gate}: " in shown
    assert f"blocks.{without}: 2 x Block" in shown
    assert f"value_embeddings.{with_gate}: " in shown


def test_parts_without_parameters_are_shown_without_a_number():
    assert repr(Module()).split() == ["Module", "parameters", "0"]
    assert repr(LayerNorm(3)).split("\n")[0] == "LayerNorm(gain 3, bias 3)"
