"""Prompts that join together are read in few batches, and each as if it were alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.inference.test_engine import SMALL, TOKENS, VARIANTS, finished, restless
from tinygrad_chat import GPT, Compute, ModelOptions
from tinygrad_chat.inference import rows as rows_module
from tinygrad_chat.inference.engine import Engine
from tinygrad_chat.inference.options import GenerationOptions
from tinygrad_chat.inference.rows import SharedRows, Unread, batches, rows_of
from tinygrad_chat.models.weights import draw_weights, quantized_weights

LONG = 160
KEPT = 40
random = np.random.default_rng(0)
PROMPTS = [random.integers(TOKENS, size=length).tolist() for length in (1, 2, 17, 64, 12, 50, 64, 3)]
PROMPTS[5][:KEPT] = PROMPTS[3][:KEPT]  # of 50 tokens as many are known where the one of 64 came before


def shared_rows(model: GPT, prefix_bytes: int = 0) -> SharedRows:
    rows = rows_of(model, len(PROMPTS) + 1, cached=True, prefix_bytes=prefix_bytes)
    assert isinstance(rows, SharedRows)
    return rows


def with_kept(model: GPT) -> SharedRows:
    """Return rows that have a beginning of some of the prompts."""
    rows = shared_rows(model, prefix_bytes=1 << 20)
    for prompt in (PROMPTS[3][: KEPT + 5], PROMPTS[2][:9]):
        rows.join([prompt])
        rows.leave(0)
    return rows


@pytest.fixture(params=[*VARIANTS, "numpy kernels", "float32"])
def model(request: pytest.FixtureRequest) -> GPT:
    if request.param in VARIANTS:
        return restless({**VARIANTS[request.param], "context": LONG})
    options = ModelOptions(**{**SMALL, "width": 64, "context": LONG, "positions": "rotary", "window": 20})
    kernels = "numpy" if request.param == "numpy kernels" else "auto"
    return GPT(TOKENS, options, compute=Compute.choose("numpy", kernels))  # with heads that are wide enough for tiles


@pytest.mark.profile("ci")
@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("beside", [0, 1])
def test_prompts_of_any_lengths_are_read_as_each_alone(
    model: GPT, kept: bool, beside: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(rows_module, "PASS", LONG)  # all are one batch
    rows = with_kept(model) if kept else shared_rows(model)
    if beside:
        rows.join([PROMPTS[4][:7]])
    before = rows.tokens_read
    order, logits = rows.join(PROMPTS)
    assert sorted(order) == list(range(len(PROMPTS)))
    read = rows.tokens_read - before
    assert read == sum(map(len, PROMPTS)) or (kept and read < sum(map(len, PROMPTS)))
    next_tokens = np.array([0] * beside + [1 + place % 4 for place in order])
    then = rows.step(next_tokens.tolist())
    close: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-11} if model.dtype == np.float64 else {"rtol": 0, "atol": 2e-5}
    for row, place in enumerate(order, beside):
        alone = shared_rows(model)
        np.testing.assert_allclose(logits[row - beside], alone.join([PROMPTS[place]])[1][0], **close)
        np.testing.assert_allclose(then[row], alone.step([next_tokens[row]])[0], **close)
        found, expected = (each._cache.keys_and_values(at) for each, at in ((rows, row), (alone, 0)))
        np.testing.assert_allclose(found, expected, **close)


@pytest.mark.profile("ci")
@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("kept", [False, True])
def test_a_seed_gives_the_same_text_alone_and_in_company(name: str, temperature: float, kept: bool):
    model = restless({**VARIANTS[name], "context": LONG})
    engine = Engine(model, None, prefix_bytes=1 << 20 if kept else 0)
    options = GenerationOptions(max_new_tokens=20, temperature=temperature, seed=3)
    if kept:
        finished(engine, engine.submit(PROMPTS[3][: KEPT + 5], options))
    requests = [engine.submit(prompt, options) for prompt in PROMPTS]
    engine.finish(requests)
    for prompt, request in zip(PROMPTS, requests, strict=True):
        alone = Engine(model, None, prefix_bytes=0)
        assert request.tokens == finished(alone, alone.submit(prompt, options)).tokens


def test_with_int8_a_prompt_is_read_to_the_same_bits_in_any_company():
    """And so is a token after it, but that NumPy's attention adds up a row with its padding."""
    options = ModelOptions(**{**SMALL, "width": 64, "context": LONG})
    for kind, exact in (("int8", True), ("float16", False)):
        model = GPT(TOKENS, options, weights=quantized_weights(options, TOKENS, draw_weights(options, TOKENS), kind))
        assert model.batch_invariant == exact
        rows = shared_rows(model)
        order, logits = rows.join(PROMPTS)
        tokens = [place % 5 for place in order]
        then = rows.step(tokens)
        for row, place in enumerate(order):
            alone = shared_rows(model)
            first = alone.join([PROMPTS[place]])[1][0]
            np.testing.assert_allclose(logits[row], first, rtol=0, atol=0 if exact else 2e-5)
            exact_step = exact and model.compute.kernels != "numpy"
            np.testing.assert_allclose(then[row], alone.step([tokens[row]])[0], rtol=0, atol=0 if exact_step else 2e-5)


def sizes(lengths: list[int], most_tokens: int = 1024) -> list[list[int]]:
    """Return the lengths of prompts that are read together."""
    prompts = [Unread((0,) * length, None) for length in lengths]
    return [[each.new for each in batch] for batch in batches(prompts, most_tokens=most_tokens)]


def test_a_batch_has_similar_lengths_and_not_too_many_tokens():
    assert sizes([1, 64, 2, 17, 60, 64, 40]) == [[64, 64, 60, 40], [17], [2, 1]]
    assert sizes([200] * 7 + [180]) == [[200] * 5, [200, 200, 180]]
    assert sizes([3000, 2900]) == [[3000], [2900]]
    assert sizes([5, 5, 4], most_tokens=0) == [[5], [5], [4]]
    assert sizes([]) == []


def test_many_prompts_are_few_passes_through_the_model(monkeypatch: pytest.MonkeyPatch):
    model = restless({**VARIANTS["rotary"], "context": LONG})
    shapes: list[tuple[int, ...]] = []
    original = model.next_token_logits
    monkeypatch.setattr(
        model, "next_token_logits", lambda tokens, cache: shapes.append(tokens.shape) or original(tokens, cache)
    )
    rows = shared_rows(model)
    rows.join([PROMPTS[3], PROMPTS[5], PROMPTS[6], PROMPTS[3], PROMPTS[4]])
    assert shapes == [(3, 64), (1, 12)]
    rows.join([PROMPTS[4], PROMPTS[4], PROMPTS[0], PROMPTS[7]])
    assert shapes == [(3, 64), (1, 12), (2, 3)]  # what came last is not read again
