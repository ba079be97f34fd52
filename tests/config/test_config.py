"""Configuration: which layer wins, what is refused, and that nothing is lost on the way through TOML."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import tomli_w

from tinygrad_chat.config.training import (
    DEFAULTS_FOR,
    TrainingConfig,
    change_config,
    parse_settings,
    preset_names,
    read_settings,
    resolve_config,
    to_settings,
)
from tinygrad_chat.errors import ConfigError
from tinygrad_chat.models.registry import MODELS
from tinygrad_chat.optim import SCHEDULES


def test_flags_win_over_the_file_and_the_file_over_what_suits_the_model(tmp_path: Path):
    path = tmp_path / "c.toml"
    path.write_text('model = "bigram"\nlr = 0.3\nbatch-size = 5\n')
    config = resolve_config({"batch_size": 7}, str(path))
    assert (config.model, config.lr, config.batch_size) == ("bigram", 0.3, 7)
    assert resolve_config({"model": "bigram"}).lr == DEFAULTS_FOR["bigram"]["lr"]
    assert resolve_config({}) == TrainingConfig()


@pytest.mark.parametrize("config", [TrainingConfig(), TrainingConfig(minutes=2.5, window=3, clip=0.0, tied=False)])
def test_a_configuration_survives_toml(config):
    assert TrainingConfig(**parse_settings(tomli_w.dumps(to_settings(config)), source="x")) == config


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_a_valid_configuration(name):
    assert isinstance(resolve_config({}, name), TrainingConfig)


def test_a_file_wins_over_a_preset_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("names").write_text("steps = 3\n")
    assert read_settings("names") == {"steps": 3}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("layrs = 3", "--config c.toml: unknown key 'layrs'; did you mean layers?"),
        ("layers = 2.5", "--config c.toml: layers: expected int, received 2.5"),
        ("tied = 1", "--config c.toml: tied: expected bool, received 1"),
        ("layers = ", "--config c.toml: not valid TOML"),
    ],
)
def test_a_bad_file_is_refused_by_its_name_and_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, message: str
):
    monkeypatch.chdir(tmp_path)
    Path("c.toml").write_text(content)
    with pytest.raises(ConfigError) as caught:
        resolve_config({}, "c.toml")
    assert message in str(caught.value)


def test_a_file_that_is_not_there_is_refused_with_the_presets():
    with pytest.raises(
        ConfigError, match=r"--config nowhere.toml: expected a TOML file or one of the presets best-small, names, "
    ):
        resolve_config({}, "nowhere.toml")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": 3}, "--heads: expected a divisor of --width 128, received 3"),
        ({"min_lr": 1.0}, "--min-lr: expected at most --lr 0.004, received 1.0"),
        ({"warmdown": 1.5}, "--warmdown: expected a share of at most 1, received 1.5"),
        ({"dropout": 1.0}, "--dropout: expected less than 1, received 1.0"),
        ({"lr": float("nan")}, "--lr: expected a finite number, received nan"),
        ({"model": "llama"}, "--model: expected one of bigram, mini-gpt, nanochat, received 'llama'"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_its_flag(settings, message):
    with pytest.raises(ConfigError) as caught:
        resolve_config(settings)
    assert str(caught.value) == message


def test_choices_are_the_tables_they_choose_from():
    """They are written out in the configuration, so that `tgc --help` need not import the tables."""
    choices = {field.name: field.metadata["choices"] for field in dataclasses.fields(TrainingConfig)}
    assert set(choices["model"]) == set(MODELS)
    assert set(choices["lr_schedule"]) == set(SCHEDULES)


def test_a_resumed_run_may_train_longer_but_not_become_another_model():
    assert change_config(TrainingConfig(), {"steps": 5000, "layers": 4}).steps == 5000
    with pytest.raises(ConfigError, match="--layers: the run to resume has 4, received 5"):
        change_config(TrainingConfig(), {"layers": 5})


def test_a_short_run_warms_up_for_a_tenth_so_that_it_still_comes_down():
    assert resolve_config({"steps": 50}).warmup == 5
    assert resolve_config({"steps": 50, "warmup": 20}).warmup == 20
    assert resolve_config({"minutes": 1.0}).warmup == TrainingConfig.warmup


def test_a_files_warm_up_is_shortened_for_shorter_runs_and_a_users_is_not():
    assert resolve_config({"steps": 100}, "shakespeare-cpu").warmup == 10
    assert resolve_config({"steps": 100, "warmup": 60}, "shakespeare-cpu").warmup == 60
    assert resolve_config({"steps": 5000}, "best-small").warmup == 100


def test_rates_beside_muon_need_muon_and_follow_how_large_embeddings_begin():
    with pytest.raises(ConfigError, match="--embedding-lr: expected --optimizer muon, received adamw"):
        resolve_config({"embedding_lr": 0.1})
    config = resolve_config({"optimizer": "muon"})
    assert (config.lr, config.embedding_lr, config.head_lr, config.scalar_lr) == pytest.approx(
        (0.02, 0.0075, 0.008, 0.5)
    )
    assert resolve_config({"optimizer": "muon", "initialisation": "nanochat"}).embedding_lr == pytest.approx(0.3)
