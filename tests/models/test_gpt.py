"""GPT in all its variants: against PyTorch, forwards in time only, and with a cache as without."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tinygrad_chat.errors import ConfigError, ShapeError
from tinygrad_chat.models.gpt import GPT
from tinygrad_chat.models.nanochat import NANOCHAT
from tinygrad_chat.models.options import ModelOptions

V, B, T = 7, 2, 5

VARIANTS = [
    {
        "norm": norm,
        "activation": activation,
        "positions": positions,
        "tied": tied,
        "bias": bias,
        "key_value_heads": key_value_heads,
    }
    for norm, activation, positions, tied, bias, key_value_heads in itertools.product(
        ("layernorm", "rmsnorm"),
        ("gelu", "squared_relu"),
        ("learned", "rotary"),
        (True, False),
        (True, False),
        (None, 1),
    )
]
FURTHER = [{"window": 2}, {"soft_cap": 0.5}, {"norm": "none", "tied": False}, {"positions": "none"}, {"layers": 0}]
FURTHER += [{"heads": 3, "head_width": 6, "feed_forward_width": 5, "positions": "rotary", "bias": True}]
FURTHER += [
    {"norm": "rmsnorm", "activation": "swiglu", "bias": bias, "feed_forward_width": 9} for bias in (True, False)
]
FURTHER += [
    {"query_key_value_bias": True, "key_value_heads": 2},
    {"positions": "rotary", "qk_norm": 1.0, "qk_gain": True, "head_width": 6, "key_value_heads": 2},
    {"positions": "rotary", "no_rotary_every": 2},
]
CACHED = [
    {},
    {"positions": "rotary"},
    {"key_value_heads": 1},
    {"window": 2},
    {"positions": "rotary", "key_value_heads": 2, "window": 3, "soft_cap": 1.0},
    {"heads": 3, "head_width": 2, "feed_forward_width": 7},
    {"positions": "rotary", "qk_norm": 1.0, "qk_gain": True, "activation": "swiglu", "query_key_value_bias": True},
    {"positions": "rotary", "no_rotary_every": 2, "rotary_scaling": "yarn", "rotary_base": 9.0},
    {"document_mask": True, "document_token": 0},
    {"document_mask": True, "document_token": 0, "positions": "rotary", "smear": True},
]


def in_words(variant: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in variant.items()) or "defaults"


def make_gpt(**chosen: Any) -> GPT:
    """A small GPT in float64, every parameter moved off its first value, so that gains and biases matter."""
    options = ModelOptions(**{"layers": 2, "heads": 4, "width": 16, "context": 6, **chosen})
    model = GPT(V, options, dtype=np.float64)
    parameters = model.parameters()
    parameters.data += 0.3 * np.random.default_rng(1).normal(size=parameters.size)
    return model


random = np.random.default_rng(2)
tokens, targets = random.integers(0, V, size=(B, T)), random.integers(0, V, size=(B, T))


@pytest.fixture
def torch() -> Iterator[Any]:
    """PyTorch on one thread: more of them would only wait for each other on arrays this small."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch
    torch.set_num_threads(threads)


@pytest.mark.parametrize("variant", [*VARIANTS, *FURTHER], ids=in_words)
def test_loss_and_every_gradient_agree_with_pytorch(torch, variant):
    from tests.models import torch_gpt

    model = make_gpt(**variant)
    parameters = model.parameters()
    state = {name: torch.tensor(array, requires_grad=True) for name, array in parameters.state().items()}
    theirs = torch_gpt.loss(state, torch.tensor(tokens), torch.tensor(targets), model.options)
    theirs.backward()
    ours: Any = model.loss(tokens, targets)
    ours.backward()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-9)
    for name, tensor in state.items():
        np.testing.assert_allclose(parameters[name].grad, tensor.grad.numpy(), rtol=1e-9, atol=1e-9, err_msg=name)


PACKED = [{}, {"positions": "rotary", "window": 2}, {**NANOCHAT, "vocabulary_multiple": 1, "tied": False}]


@pytest.mark.parametrize("variant", PACKED, ids=["learned positions", "rotary positions", "nanochat"])
def test_documents_in_one_row_give_the_losses_and_gradients_that_each_gives_alone(variant):
    model = make_gpt(context=9, document_mask=True, document_token=0, **variant)
    alone = make_gpt(context=9, **variant)
    row, follow = np.array([[5, 3, 0, 1, 2, 6, 0, 0, 4]]), np.array([[3, 0, 1, 2, 6, 0, 0, 4, 1]])
    model.loss(row, follow).backward()
    expected = np.zeros(9)
    for part in (slice(0, 2), slice(2, 6), slice(6, 7), slice(7, 9)):
        expected[part] = alone.token_losses(row[:, part], follow[:, part])[0]
        alone.loss(row[:, part], follow[:, part], token_count=9).backward()
    np.testing.assert_allclose(model.token_losses(row, follow)[0], expected, rtol=1e-9)
    np.testing.assert_allclose(model.parameters().gradient, alone.parameters().gradient, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("length", [1, 2, 3, 8, 9, 100])
def test_a_document_begins_at_its_token_however_far_back_that_is(length: int):
    model = make_gpt(context=100, document_mask=True, document_token=0)
    for first in range(length):
        row = np.where(np.isin(np.arange(length), (first, first + 7)), 0, 1)[None]
        wanted = [position for position, token in enumerate(row[0]) if not token]
        starts = [max([each for each in wanted if each <= position], default=0) for position in range(length)]
        np.testing.assert_array_equal(model._read(row, slice(0, length), None)[1], [starts])


def test_a_document_mask_needs_the_token_with_which_documents_begin():
    with pytest.raises(ConfigError, match="--document-token"):
        ModelOptions(document_mask=True)


@pytest.mark.parametrize("variant", CACHED, ids=in_words)
def test_logits_do_not_depend_on_later_tokens(variant):
    model = make_gpt(**variant)
    changed = tokens.copy()
    changed[:, 3:] = (changed[:, 3:] + 1) % V
    before, after = model.logits(tokens).data, model.logits(changed).data
    np.testing.assert_array_equal(after[:, :3], before[:, :3])
    assert np.all(np.abs(after[:, 3:] - before[:, 3:]).max(axis=-1) > 1e-6)


@pytest.mark.parametrize("chunks", [[1, 1, 1, 1, 1], [3, 2], [2, 1, 2], [5]], ids=str)
@pytest.mark.parametrize("variant", CACHED, ids=in_words)
def test_next_token_logits_with_a_cache_equal_those_without(variant, chunks):
    model = make_gpt(**variant)
    cache = model.new_cache(B)
    end = 0
    for length in chunks:
        start, end = end, end + length
        with_cache = model.next_token_logits(tokens[:, start:end], cache)
        np.testing.assert_allclose(with_cache, model.next_token_logits(tokens[:, :end]), rtol=1e-10, atol=1e-12)
    assert cache.length == T


def test_a_model_that_computes_blocks_again_writes_what_it_would_without():
    """Samples are written while it is trained."""
    model = make_gpt(norm="rmsnorm", positions="rotary")
    expected = model.next_token_logits(tokens)
    model.recompute = True
    cache, found = model.new_cache(B), np.zeros(0)
    for token in tokens.T:
        found = model.next_token_logits(token[:, None], cache)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_cleared_cache_has_forgotten_its_tokens():
    model = make_gpt()
    cache = model.new_cache(B)
    model.next_token_logits(targets, cache)
    cache.clear()
    np.testing.assert_allclose(model.next_token_logits(tokens, cache), model.next_token_logits(tokens))


def test_next_token_logits_are_the_last_ones_within_the_soft_cap():
    model = make_gpt(soft_cap=0.5)
    logits = model.logits(tokens).data[:, -1]
    capped = model.next_token_logits(tokens)
    np.testing.assert_allclose(capped, 0.5 * np.tanh(logits / 0.5))
    assert np.abs(logits).max() > 0.5 > np.abs(capped).max()


def test_more_tokens_than_the_context_are_refused_with_and_without_a_cache():
    model = make_gpt()
    cache = model.new_cache(B)
    model.next_token_logits(tokens, cache)
    message = "GPT: expected at most 6 tokens (the context), received 7"
    for call in (
        lambda: model.next_token_logits(np.zeros((B, 7), int)),
        lambda: model.next_token_logits(tokens[:, :2], cache),
        lambda: model.loss(np.zeros((B, 7), int), np.zeros((B, 7), int)),
    ):
        with pytest.raises(ShapeError, match=f"^{re.escape(message)}$"):
            call()
    assert cache.length == T  # a refused call leaves the cache as it was


def test_dropout_acts_in_training_alone_and_is_decided_by_the_seed():
    model = make_gpt(dropout=0.5)

    def loss(seed: int | None) -> float:
        return model.loss(tokens, targets, random=None if seed is None else np.random.default_rng(seed)).item()

    assert loss(None) == make_gpt().loss(tokens, targets).item()
    assert loss(1) == loss(1)
    assert len({loss(None), loss(1), loss(2)}) == 3


def test_dropout_acts_on_the_embedding_too():
    options = ModelOptions(layers=0, width=64, context=T, positions="none", norm="none", dropout=0.5)
    hidden = GPT(V, options).hidden(np.zeros((B, T), np.int64), random=np.random.default_rng(0)).data
    assert 0.3 < (hidden == 0).mean() < 0.7


def test_weights_are_decided_by_the_random_stream():
    first, again, other = (GPT(V, ModelOptions(), random=np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.parameters().data, again.parameters().data)
    assert np.any(first.parameters().data != other.parameters().data)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"heads": 3}, "--heads: expected a divisor of --width 128, received 3"),
        ({"key_value_heads": 3}, "--key-value-heads: expected a divisor of --heads 4, received 3"),
        (
            {"positions": "rotary", "width": 12},
            "--positions rotary: expected an even width per head, received 3",
        ),
        ({"positions": "rotary", "head_width": 5}, "--positions rotary: expected an even width per head, received 5"),
        ({"head_width": 0}, "--head-width: expected at least 1, received 0"),
        ({"feed_forward_width": 0}, "--feed-forward-width: expected at least 1, received 0"),
        ({"layers": -1}, "--layers: expected at least 0, received -1"),
        ({"dropout": 1.0}, "--dropout: expected less than 1, received 1.0"),
        ({"window": 0}, "--window: expected at least 1, received 0"),
        ({"soft_cap": 0.0}, "--soft-cap: expected more than 0, received 0.0"),
        ({"qk_gain": True}, "--qk-gain: expected a --qk-norm, received none"),
        (
            {"positions": "rotary", "qk_norm": 1.0, "no_rotary_every": 4},
            "--no-rotary-every: expected no --qk-norm, which is part of the rotation",
        ),
        (
            {"positions": "rotary", "rotary_scaling": "llama3", "rotary_slow_turns": 4.0},
            "--rotary-slow-turns: expected less than --rotary-fast-turns 4.0, received 4.0",
        ),
        (
            {"positions": "rotary", "rotary_scaling": "yarn", "rotary_base": 1.0},
            "--rotary-scaling yarn: expected a --rotary-base above 1, received 1",
        ),
        ({"rotary_factor": 0.5}, "--rotary-factor: expected at least 1, received 0.5"),
        ({"norm": "batchnorm"}, "--norm: expected one of layernorm, rmsnorm, none, received 'batchnorm'"),
    ],
)
def test_options_that_cannot_work_are_refused_in_one_line_by_their_flag(chosen, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        ModelOptions(**chosen)
