"""nanochat's scaling laws: what follows from a depth, what a user's choice leaves alone, and a depth from minutes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tinygrad_chat.config import scaling_laws
from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.config.resolve import FREE
from tinygrad_chat.config.scaling_laws import depth_for, settings_of_depth
from tinygrad_chat.errors import ConfigError, DataError
from tinygrad_chat.models.options import ModelOptions
from tinygrad_chat.training import facts


def resolved(settings: dict[str, Any]) -> TrainingConfig:
    return facts.resolve_with_facts(settings)[0]


D4: dict[str, Any] = {
    "width": 256,
    "heads": 2,
    "steps": 528,
    "grad_accumulation": 4,
    "lr": 0.0141421,
    "embedding_lr": 0.36742,
    "head_lr": 0.0097980,
    "scalar_lr": 0.35355,
    "weight_decay": 1.88990,
}
D12: dict[str, Any] = {
    "width": 768,
    "heads": 6,
    "steps": 2520,
    "grad_accumulation": 8,
    "lr": 0.02,
    "embedding_lr": 0.3,
    "head_lr": 0.008,
    "scalar_lr": 0.5,
    "weight_decay": 0.28,
}
SMALL_D4: dict[str, Any] = {
    "width": 256,
    "heads": 2,
    "steps": 291,
    "grad_accumulation": 16,
    "lr": 0.01,
    "embedding_lr": 0.25981,
    "head_lr": 0.0069282,
    "scalar_lr": 0.25,
    "weight_decay": 3.74532,
}


@pytest.mark.parametrize(
    ("depth", "context", "vocabulary", "batch", "expected"),
    [
        (4, 2048, 32768, 262_144, D4),
        (12, 2048, 32768, 524_288, D12),
        (4, 256, 104, 131_072, SMALL_D4),
        (8, 2048, 32768, 262_144, {"steps": 1920, "weight_decay": 0.51972}),
        (24, 2048, 32768, 1_048_576, {"steps": 8352, "weight_decay": 0.059738}),
    ],
)
def test_all_follows_from_the_depth_as_upstream_prints_it(depth, context, vocabulary, batch, expected):
    """docs/upstream_analysis.md, chapter 6."""
    settings = settings_of_depth({"depth": depth, "context": context}, vocabulary)
    assert settings["batch_size"] * context == batch
    assert settings["layers"] == depth
    for name, value in expected.items():
        assert settings[name] == pytest.approx(value, rel=1.5e-5), name  # as many digits as that has
    assert settings["min_lr"] == pytest.approx(0.05 * settings["lr"])


def test_what_a_user_chooses_stays_and_the_rest_follows_from_it(text: Path):
    chosen = {"depth": 4, "batch_size": 8, "lr": 0.5, "width": 128, "soft_cap": 30.0, "steps": 7}
    settings = settings_of_depth(chosen, 104)
    assert settings["embedding_lr"] == pytest.approx(0.3 * (768 / 128) ** 0.5 * (8 * 256 / 2**19) ** 0.5)
    assert (settings["min_lr"], settings["grad_accumulation"]) == (0.025, 1)
    config = resolved({"model": "nanochat", "data": str(text), **chosen})
    assert {name: config.settings()[name] for name in chosen} == chosen
    # The batches of the comparison on a CPU: the analysis' own figures.
    small = settings_of_depth({"depth": 4, "batch_size": 8}, 104)
    assert (small["lr"], small["weight_decay"]) == (0.00125, pytest.approx(0.46817, rel=1e-5))


def test_a_batch_is_computed_in_equal_micro_batches_of_at_most_32_windows():
    """Or whole, where there are none of at least 16."""
    micro_batches = {
        rows: settings_of_depth({"batch_size": rows}, 104)["grad_accumulation"] for rows in (1, 32, 33, 64, 100, 37)
    }
    assert micro_batches == {1: 1, 32: 1, 33: 1, 64: 2, 100: 4, 37: 1}


def test_the_settings_are_a_run_s_own_from_the_vocabulary_of_its_text(tmp_path: Path):
    path = tmp_path / "text.txt"
    path.write_text("abc" * 1000)
    config = resolved({"model": "nanochat", "depth": 1, "data": str(path), "context": 64})
    expected = settings_of_depth({"depth": 1, "context": 64}, vocabulary=4)
    assert {name: config.settings()[name] for name in expected} == {**expected, "warmup": expected["steps"] // 10}
    assert (
        resolved({"model": "nanochat", "depth": 1, "data": str(path), "tokenizer": "bytes"}).settings()["steps"]
        != config.schedule.steps
    )


def test_minutes_alone_choose_the_depth(text: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(facts, "measure_product_rate", lambda compute: 300e9)
    asked = {"model": "nanochat", "minutes": 60.0, "data": str(text)}
    config = resolved(asked)
    assert config.recipe.depth == config.model.layers == depth_for(asked, 30, 300e9) == 3
    assert config.schedule.steps < 10**6  # as many as the tokens make, within the minutes
    assert resolved({**asked, "depth": 5}).settings()["depth"] == 5


def test_more_minutes_and_a_faster_machine_never_mean_a_shallower_model():
    depths = [depth_for({"minutes": minutes}, 104, 200e9) for minutes in (0.01, 1, 10, 100, 1000)]
    assert depths == sorted(depths)
    assert depth_for({"minutes": 1.0}, 104, 1e21) == scaling_laws.DEEPEST


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"depth": 0}, "--depth: expected at least 1, received 0"),
        ({"batch_size": -3}, "--batch-size: expected at least 1, received -3"),
        ({"tokens_per_parameter": 0.0}, "--tokens-per-parameter: expected more than 0, received 0.0"),
        ({"tokens_per_parameter": float("nan")}, "--tokens-per-parameter: expected a finite number, received nan"),
        ({"lr": 0.0}, "--lr: expected more than 0, received 0.0"),
        ({"width": 100, "heads": 3}, "--heads: expected a divisor of --width 100, received 3"),
    ],
)
def test_what_cannot_be_is_refused_by_its_own_flag_before_anything_is_read(chosen, message, text: Path):
    with pytest.raises(ConfigError) as caught:
        resolved({"model": "nanochat", "data": str(text), **chosen})
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "chosen",
    [
        {"depth": 10**8},
        {"tokens_per_parameter": 1e-9},
        {"batch_size": 15_485_863},
        {"norm": "layernorm"},
        {"norm": "none"},
        {"bias": True},
        {"positions": "learned"},
        {"initialisation": "gpt2"},
        {"optimizer": "adamw"},
        {"mode": "scalar"},
    ],
    ids=str,
)
def test_whatever_can_be_chosen_has_its_settings_at_once(chosen, text: Path):
    config = resolved({"model": "nanochat", "data": str(text), **chosen})
    assert {name: config.settings()[name] for name in chosen} == chosen


def test_a_narrow_model_does_not_lose_more_than_half_a_weight_in_a_step(text: Path):
    narrow = settings_of_depth({"depth": 2, "width": 32, "heads": 2, "batch_size": 512}, 104)
    assert narrow["weight_decay"] * narrow["lr"] == pytest.approx(0.5)


@pytest.mark.parametrize("name", ["depth", "tokens_per_parameter"])
def test_the_scaling_laws_are_nanochats_alone(name):
    with pytest.raises(ConfigError, match=r"has no effect with --model mini-gpt; it needs --model nanochat"):
        resolved({name: 2})


def test_every_setting_of_the_model_follows_or_is_the_default():
    settings = settings_of_depth({}, 104)
    names = {field.name for field in dataclasses.fields(ModelOptions)}
    own_widths = {"head_width", "feed_forward_width"}
    of_other_families = {"qk_gain", "query_key_value_bias", "no_rotary_every"}
    of_other_families |= {name for name in names if name.startswith("rotary_")} - {"rotary_base"}
    assert names - settings.keys() == {"key_value_heads", "bias", "window", *own_widths, *of_other_families, *FREE}


def test_a_text_is_not_read_where_nothing_depends_on_it():
    chosen = {"model": "nanochat", "data": "nowhere.txt", "batch_size": 8, "steps": 9}
    assert (
        resolved({**chosen, "weight_decay": 0.1}).settings()["embedding_lr"]
        == settings_of_depth(chosen, 500)["embedding_lr"]
    )
    with pytest.raises(DataError, match=r"nowhere\.txt: no such file"):
        resolved(chosen)
