"""Generation: the cache changes nothing, a sample begins with its prompt, and seeds decide."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import numpy as np
import pytest

from tests.models.table_model import certain, table_model
from tinygrad_chat import GPT, ModelOptions
from tinygrad_chat.backend import Compute
from tinygrad_chat.errors import ConfigError, DivergedError, UsageError, VocabularyError
from tinygrad_chat.inference.generation import generate, prompt_tokens, sample_texts
from tinygrad_chat.inference.options import SamplingOptions
from tinygrad_chat.text.tokenizers import ByteTokenizer, CharacterTokenizer

SMALL: dict[str, Any] = {"layers": 2, "heads": 4, "width": 16, "context": 8}
VARIANTS: list[dict[str, Any]] = [
    {},
    {"positions": "rotary", "norm": "rmsnorm", "activation": "squared_relu"},
    {"key_value_heads": 2, "tied": False, "bias": True},
    {"window": 3, "soft_cap": 5.0},
    {"context": 1},
]


def restless(model: GPT) -> GPT:
    """The model with weights large enough for every token to matter."""
    model.parameters().data[:] *= 10
    return model


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("prompt", [[3], [1, 2, 3, 4, 5, 6, 7, 8]], ids=["short", "full"])
def test_cached_generation_equals_uncached_also_beyond_the_context(variant, prompt):
    model = restless(GPT(10, ModelOptions(**{**SMALL, **variant})))
    prompt = prompt[: model.context]
    both = [
        list(generate(model, prompt, max_new_tokens=40, random=np.random.default_rng(5), temperature=3, cached=cached))
        for cached in (True, False)
    ]
    assert both[0] == both[1]
    assert len(both[0]) == 40
    assert len(set(both[0])) > 2


def test_generation_does_not_change_the_prompt():
    prompt = [1, 2, 3]
    list(generate(GPT(10, ModelOptions(**SMALL)), prompt, max_new_tokens=3, random=np.random.default_rng(0)))
    assert prompt == [1, 2, 3]


def samples(model: Any, tokenizer: Any, **options: Any) -> list[str]:
    return ["".join(pieces) for pieces in sample_texts(model, tokenizer, SamplingOptions(**options))]


@pytest.fixture(params=["gpt", "bigram"])
def model(request: pytest.FixtureRequest) -> Any:
    return restless(GPT(5, ModelOptions(**SMALL))) if request.param == "gpt" else table_model(np.eye(5))


ABCD = CharacterTokenizer("abcd")


def test_each_sample_begins_with_the_prompt(model):
    texts = samples(model, ABCD, prompt="abca", num_samples=4, max_new_tokens=30)
    assert len(texts) == 4
    assert all(text.startswith("abca") for text in texts)
    assert len(set(texts)) > 1


def test_the_seed_decides_and_each_sample_is_its_own(model):
    first = samples(model, ABCD, num_samples=3, seed=4, temperature=9.0)
    assert first == samples(model, ABCD, num_samples=3, seed=4, temperature=9.0)
    assert first != samples(model, ABCD, num_samples=3, seed=5, temperature=9.0)
    assert first[:1] == samples(model, ABCD, num_samples=1, seed=4, temperature=9.0)


def test_a_sample_ends_where_a_new_document_would_begin():
    model = table_model(certain(5, {ABCD.bos: 0, 0: 1, 1: ABCD.bos}))  # BOS -> a -> b -> BOS
    assert samples(model, ABCD) == ["ab"]


def test_no_text_is_empty_but_behind_a_prompt_it_may_end_at_once():
    model = table_model(certain(5, {ABCD.bos: ABCD.bos, 0: ABCD.bos, 1: ABCD.bos, 2: ABCD.bos, 3: ABCD.bos}))
    assert [len(text) for text in samples(model, ABCD, num_samples=5)] == [1] * 5
    assert samples(model, ABCD, prompt="ab") == ["ab"]


def test_text_of_bytes_comes_in_whole_characters():
    tokenizer = ByteTokenizer()
    content = [tokenizer.bos, *"é日".encode(), tokenizer.bos]
    model = table_model(certain(tokenizer.size, dict(itertools.pairwise(content))))
    pieces = next(sample_texts(model, tokenizer, SamplingOptions()))
    assert list(pieces) == ["é", "日"]


def test_of_a_prompt_longer_than_the_context_the_end_counts_and_a_line_says_so(model):
    said: list[str] = []
    options = SamplingOptions(prompt="dddabcabcac", max_new_tokens=20, seed=3)
    [text] = ["".join(pieces) for pieces in sample_texts(model, ABCD, options, say=said.append)]
    [of_the_end] = samples(model, ABCD, prompt="abcabcac", max_new_tokens=20, seed=3)
    assert text == f"ddd{of_the_end}"
    assert prompt_tokens(model, ABCD, options.prompt) == ABCD.encode("abcabcac").tolist()
    assert said == ["the prompt has 11 tokens; the model continues from the last 8, its context"]


def test_a_prompt_as_long_as_the_context_is_taken_as_it_is(model):
    said: list[str] = []
    assert len(list(sample_texts(model, ABCD, SamplingOptions(prompt="a" * 8), say=said.append))) == 1
    assert said == []


def test_a_prompt_with_an_unknown_character_is_refused(model):
    with pytest.raises(VocabularyError, match="offset 1 "):
        sample_texts(model, ABCD, SamplingOptions(prompt="az"))


def test_with_a_cache_each_token_is_read_once(monkeypatch: pytest.MonkeyPatch):
    model, read = GPT(10, ModelOptions(**SMALL)), []
    original = GPT.next_token_logits
    monkeypatch.setattr(
        GPT,
        "next_token_logits",
        lambda self, tokens, cache: read.append(tokens.shape[1]) or original(self, tokens, cache),
    )
    list(generate(model, [1, 2, 3], max_new_tokens=9, random=np.random.default_rng(0)))
    assert read == [3, 1, 1, 1, 1, 1, 4, 1, 1]  # full at eight, so the later four are read again


@pytest.mark.parametrize(
    ("prompt", "options", "error", "message"),
    [
        ([], {}, UsageError, r"expected a prompt of 1 to 4 tokens \(the model's context\), received 0"),
        ([1] * 5, {}, UsageError, r"expected a prompt of 1 to 4 tokens \(the model's context\), received 5"),
        ([1, -1], {}, UsageError, "expected tokens from 0 to 4, received -1 to 1"),
        ([5], {}, UsageError, "expected tokens from 0 to 4, received 5 to 5"),
        ([1], {"top_k": 0}, ConfigError, "--top-k: expected at least 1, received 0"),
        ([1], {"max_new_tokens": 0}, ConfigError, "--max-new-tokens: expected at least 1, received 0"),
    ],
)
def test_what_cannot_be_generated_is_refused_at_once(prompt, options, error, message):
    model = GPT(5, ModelOptions(layers=1, heads=1, width=4, context=4))
    with pytest.raises(error, match=message):
        generate(model, prompt, **{"max_new_tokens": 1, "random": np.random.default_rng(0), **options})


@pytest.mark.parametrize("size", [1e10, 1e25, 3e38])
@pytest.mark.parametrize("kernels", ["numpy", "auto"])
@pytest.mark.parametrize("variant", VARIANTS[:3], ids=str)
def test_huge_weights_give_a_text_or_one_line_and_no_warning(variant: dict[str, Any], kernels: str, size: float):
    model = GPT(10, ModelOptions(**{**SMALL, **variant}), compute=Compute.choose(kernels=kernels))
    model.parameters().data[:] = size * np.random.default_rng(0).choice([-1, 1], model.parameters().size)
    with contextlib.suppress(DivergedError):
        assert len(list(generate(model, [3], max_new_tokens=12, random=np.random.default_rng(5)))) == 12
