"""What is computed again gives the same value and the same gradients, to the bit, and keeps less."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tinygrad_chat import GPT, Compute, Tensor, ops
from tinygrad_chat.autograd import no_grad, recomputed, reference_ops, watched_ops
from tinygrad_chat.models.options import ModelOptions

random = np.random.default_rng(0)
OPTIONS = ModelOptions(layers=3, heads=4, key_value_heads=2, width=16, context=8)
CHANGES = [
    {},
    {"activation": "swiglu", "norm": "rmsnorm", "positions": "rotary", "qk_norm": 1.0, "tied": False},
    {"value_embeddings": True, "residual_scales": True, "backout": True, "smear": True, "positions": "rotary"},
    {"document_mask": True, "document_token": 3, "bias": True, "window": 3},
]


def loss_and_gradients(options, recompute, kernels="auto", **steps):
    model = GPT(13, options, compute=Compute.choose("numpy", kernels), random=np.random.default_rng(1))
    model.recompute = recompute
    tokens = np.random.default_rng(2).integers(13, size=(2, 9))
    parameters = model.parameters()

    def sweep() -> float:
        loss = model.loss(tokens[:, :-1], tokens[:, 1:], **steps)
        loss.backward()
        return loss.item()

    losses = [sweep(), sweep()]  # the second adds to the first's gradient
    return losses[-1], parameters.gradient.copy()


@pytest.mark.parametrize("kernels", ["auto", "numpy", "reference"])
@pytest.mark.parametrize("changes", CHANGES, ids=[" ".join(each) or "mini-gpt" for each in CHANGES])
def test_a_model_has_the_same_loss_and_gradient_to_the_bit(changes, kernels):
    options = dataclasses.replace(OPTIONS, **changes)
    kept, again = (loss_and_gradients(options, recompute, kernels) for recompute in (False, True))
    assert kept[0] == again[0]
    np.testing.assert_array_equal(kept[1], again[1])
    assert np.count_nonzero(kept[1]) > 0.5 * kept[1].size


def test_adapters_have_the_same_gradient():
    options = dataclasses.replace(OPTIONS, lora=2)
    kept, again = (loss_and_gradients(options, recompute) for recompute in (False, True))
    np.testing.assert_array_equal(kept[1], again[1])


def test_nothing_between_is_kept():
    """Of a chain of ten ops the graph holds one node, whose parents are what goes in."""
    x, weight = Tensor(random.normal(size=(4, 4))), Tensor(random.normal(size=(4, 4)))

    def chain(x):
        for _ in range(5):
            x = ops.gelu(ops.linear(x, weight))
        return x

    out = recomputed(chain, [x], [weight])
    assert out.parents == (x, weight)
    out.backward(np.ones((4, 4)))
    gradients = x.grad, weight.grad
    x.grad = weight.grad = None
    chain(x).backward(np.ones((4, 4)))
    np.testing.assert_array_equal(gradients[0], x.grad)
    np.testing.assert_allclose(gradients[1], weight.grad, rtol=1e-12)


def test_the_second_time_all_is_in_force_that_was_the_first_time():
    seen = []

    def watch(operation, inputs, options):
        seen.append(operation.name)
        return lambda out, rule: rule

    x = Tensor(random.normal(size=(2, 2)))
    with reference_ops(), watched_ops(watch):
        out = recomputed(ops.gelu, [x], [])
    out.backward(np.ones((2, 2)))
    assert seen == ["gelu", "gelu"]


def test_without_a_gradient_it_is_a_plain_call():
    x = Tensor(random.normal(size=(2, 2)))
    with no_grad():
        assert recomputed(ops.gelu, [x], []).parents == ()
