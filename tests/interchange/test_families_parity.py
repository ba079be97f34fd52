"""Each family against transformers' own class, from random weights of a small model, in float32."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tinygrad_chat import GPT, ModelOptions
from tinygrad_chat.interchange.families import FAMILIES, family_of
from tinygrad_chat.interchange.family import Family

transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra peers)")
torch = pytest.importorskip("torch")

V, T, CONTEXT, NEW = 61, 24, 96, 64
SIZES: dict[str, Any] = {
    "vocab_size": V,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.2,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
GPT2: dict[str, Any] = {
    "vocab_size": V,
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": CONTEXT,
    "initializer_range": 0.2,
    "bos_token_id": None,
    "eos_token_id": None,
}
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "original_max_position_embeddings": 24, "rope_theta": 100.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 24, "rope_theta": 1000.0}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "GPT-2": ("gpt2", GPT2),
    "GPT-2, untied, narrow": ("gpt2", {**GPT2, "tie_word_embeddings": False, "n_inner": 40}),
    "Llama 2": ("llama", {**SIZES, "num_key_value_heads": 4}),
    "SmolLM2": ("llama", {**SIZES, "tie_word_embeddings": True, "rms_norm_eps": 1e-5, "rope_theta": 100_000.0}),
    "Llama with biases": ("llama", {**SIZES, "attention_bias": True, "mlp_bias": True, "head_dim": 10}),
    "Llama 3.1": (
        "llama",
        {**SIZES, "rope_parameters": {**LLAMA3, "low_freq_factor": 1.0, "high_freq_factor": 4.0}},
    ),
    "Llama, linear": ("llama", {**SIZES, "rope_scaling": {"type": "linear", "factor": 3.0}}),
    "Llama, YaRN": ("llama", {**SIZES, "rope_parameters": {**YARN, "mscale": 0.7, "mscale_all_dim": 0.3}}),
    "Qwen2": ("qwen2", SIZES),
    "Qwen2, tied, YaRN": ("qwen2", {**SIZES, "tie_word_embeddings": True, "rope_parameters": YARN}),
    "Qwen2 with a window": (
        "qwen2",
        {**SIZES, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 0},
    ),
    "Qwen3": ("qwen3", {**SIZES, "head_dim": 12, "rms_norm_eps": 1e-3}),
    "Qwen3, tied, YaRN": (
        "qwen3",
        {**SIZES, "head_dim": 16, "tie_word_embeddings": True, "rope_parameters": {**YARN, "attention_factor": 1.3}},
    ),
    "SmolLM3": ("smollm3", {**SIZES, "no_rope_layer_interval": 2}),
    "SmolLM3, untied, all turned": ("smollm3", {**SIZES, "tie_word_embeddings": False, "no_rope_layers": [1, 1, 1]}),
    "SmolLM3 with a window": (
        "smollm3",
        {**SIZES, "use_sliding_window": True, "sliding_window": 6, "layer_types": ["sliding_attention"] * 3},
    ),
    "NanoChat": ("nanochat", {**SIZES, "rms_norm_eps": 1e-3, "final_logit_softcapping": 2.0}),
}
every_model = pytest.mark.parametrize("name", MODELS)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """More would only wait for each other on arrays this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def theirs_of(config: dict[str, Any]) -> Any:
    """transformers' model, every parameter off its first value, so that gains and biases matter."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**config)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def opened(theirs: Any) -> tuple[Family, ModelOptions, GPT]:
    """Our model of transformers' weights, by the config.json that it would write."""
    config = json.loads(theirs.config.to_json_string())
    config["architectures"] = [type(theirs).__name__]
    family = family_of(config)
    options, vocabulary = family.options_from(config)
    arrays = {name: tensor.detach().numpy() for name, tensor in theirs.state_dict().items()}
    return family, options, GPT(vocabulary, options, weights=family.weights_from(arrays, options, vocabulary))


tokens = np.random.default_rng(0).integers(0, V, (2, T + 1))


@pytest.mark.profile("ci")
@every_model
def test_logits_loss_and_every_gradient_are_theirs(name: str):
    theirs = theirs_of({"model_type": MODELS[name][0], **MODELS[name][1]})
    family, options, ours = opened(theirs)
    logits = theirs(torch.tensor(tokens[:, :-1])).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(tokens[:, 1:]).flatten())
    loss.backward()
    np.testing.assert_allclose(ours.token_logits(tokens[:, :-1]), logits.detach().numpy(), rtol=0, atol=1e-4)
    parameters = ours.parameters()
    found: Any = ours.loss(tokens[:, :-1], tokens[:, 1:])
    found.backward()
    assert abs(found.item() - loss.item()) < 1e-5
    gradients = family.weights_to({key: parameters[key].grad for key in parameters}, options, V)
    expected = {key: parameter.grad.numpy() for key, parameter in theirs.named_parameters()}
    assert gradients.keys() == expected.keys()
    for key, gradient in expected.items():
        difference = np.linalg.norm(gradients[key] - gradient) / np.linalg.norm(gradient)
        assert difference < 1e-3, (key, difference)


@every_model
def test_64_greedy_tokens_are_theirs_with_a_cache(name: str):
    theirs = theirs_of({"model_type": MODELS[name][0], **MODELS[name][1]})
    _, _, ours = opened(theirs)
    start = tokens[:1, :8]
    wanted = theirs.generate(torch.tensor(start), max_new_tokens=NEW, do_sample=False, use_cache=True)
    cache, read, found = ours.new_cache(1), start, []
    for _ in range(NEW):
        read = ours.next_token_logits(read, cache).argmax(axis=-1)[:, None]
        found.append(int(read[0, 0]))
    assert found == wanted[0, 8:].tolist()
    assert len(set(found)) > 3  # a model that repeats a token would agree with any other that does


@every_model
def test_a_model_that_goes_out_is_opened_there_with_the_same_logits(name: str):
    first = theirs_of({"model_type": MODELS[name][0], **MODELS[name][1]})
    family, options, ours = opened(first)
    config = family.config_of(options, V)
    theirs = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**config)).eval()
    arrays = family.weights_to(ours.parameters().state(), options, V)
    report = theirs.load_state_dict({key: torch.tensor(array) for key, array in arrays.items()}, strict=False)
    assert report.unexpected_keys == []
    assert set(report.missing_keys) <= ({"lm_head.weight"} if options.tied else set())
    assert type(theirs).__name__ == family.architecture
    with torch.no_grad():
        found, expected = (model(torch.tensor(tokens[:, :-1])).logits.numpy() for model in (theirs, first))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "default", "rope_theta": 500_000.0},
        {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 2.5},
        {
            "rope_type": "llama3",
            "rope_theta": 500_000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        {"rope_type": "yarn", "rope_theta": 1_000_000.0, "factor": 4.0, "original_max_position_embeddings": 32768},
        {
            "rope_type": "yarn",
            "rope_theta": 150_000.0,
            "factor": 32.0,
            "original_max_position_embeddings": 4096,
            "beta_fast": 20.0,
            "beta_slow": 2.0,
        },
    ],
    ids=lambda rope: rope["rope_type"],
)
def test_pairs_turn_as_fast_as_theirs_at_the_sizes_of_real_models(rope: dict[str, Any]):
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    sizes = {**SIZES, "head_dim": 128, "max_position_embeddings": 131072, "rope_parameters": rope}
    config = transformers.LlamaConfig(**sizes)
    theirs: Any = LlamaRotaryEmbedding(config)
    options, _ = FAMILIES["llama"].options_from(json.loads(config.to_json_string()))
    ours = options.rotary_base ** (-np.arange(0, 128, 2) / 128) * options.pair_scales
    np.testing.assert_allclose(ours, theirs.inv_freq.numpy(), rtol=1e-5)
    assert options.attention_factor == pytest.approx(theirs.attention_scaling, rel=1e-12)
