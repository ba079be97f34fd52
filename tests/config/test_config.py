"""Configuration: which layer wins, what is refused, and that nothing is lost on the way through TOML."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import tomli_w

from tests.unreadable import refuse_to_read
from tinygrad_chat.config.defaults import DEFAULTS_FOR
from tinygrad_chat.config.files import parse_settings, parse_toml, preset_names, read_settings
from tinygrad_chat.config.record import SPECS, TrainingConfig, from_saved
from tinygrad_chat.config.resolve import change, resolve
from tinygrad_chat.errors import ConfigError
from tinygrad_chat.models.engines import ENGINES
from tinygrad_chat.models.initialisation import INITIALISATIONS
from tinygrad_chat.optim import SCHEDULES
from tinygrad_chat.text.tokenizers.splitting import PATTERNS


def test_flags_win_over_the_file_and_the_file_over_what_suits_the_model(tmp_path: Path):
    path = tmp_path / "c.toml"
    path.write_text('model = "bigram"\nlr = 0.3\nbatch-size = 5\n')
    config = resolve({"batch_size": 7}, base=read_settings(str(path)))
    assert (config.recipe.model, config.optimizer.lr, config.data.batch_size) == ("bigram", 0.3, 7)
    assert resolve({"model": "bigram"}).settings()["lr"] == DEFAULTS_FOR["bigram"]["lr"]
    assert resolve({}) == TrainingConfig()


@pytest.mark.parametrize("config", [TrainingConfig(), TrainingConfig.of(minutes=2.5, window=3, clip=0.0, tied=False)])
def test_a_configuration_survives_toml(config):
    assert TrainingConfig.of(**parse_settings(tomli_w.dumps(config.used_settings()), source="x")) == config
    assert from_saved(parse_toml(tomli_w.dumps(config.tables()), source="x"), source="x") == config


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_a_valid_configuration(name):
    assert isinstance(resolve({}, base=read_settings(name)), TrainingConfig)


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
        resolve({}, base=read_settings("c.toml"))
    assert message in str(caught.value)


def test_a_file_that_cannot_be_read_is_no_preset_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("names").mkdir()
    assert read_settings("names")["data"] == "names"
    Path("names").rmdir()
    Path("names").write_text("steps = 3")
    refuse_to_read(monkeypatch, Path("names"))
    with pytest.raises(ConfigError, match=r"names: .*Permission denied"):
        read_settings("names")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with a name")
def test_a_file_may_be_a_link_and_no_pipe(tmp_path: Path):
    (tmp_path / "file.toml").write_text("steps = 3")
    (tmp_path / "link.toml").symlink_to("file.toml")
    assert read_settings(str(tmp_path / "link.toml")) == {"steps": 3}
    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(ConfigError, match="expected a file, received a pipe"):
        read_settings(str(tmp_path / "pipe.toml"))


def test_a_file_that_is_not_there_is_refused_with_the_presets():
    with pytest.raises(
        ConfigError, match=r"--config nowhere.toml: expected a TOML file or one of the presets best-small, chat, "
    ):
        resolve({}, base=read_settings("nowhere.toml"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": 3}, "--heads: expected a divisor of --width 128, received 3"),
        ({"min_lr": 1.0}, "--min-lr: expected at most --lr 0.004, received 1.0"),
        ({"warmdown": 1.5}, "--warmdown: expected at most 1, received 1.5"),
        ({"dropout": 1.0}, "--dropout: expected less than 1, received 1.0"),
        ({"lr": float("nan")}, "--lr: expected a finite number, received nan"),
        ({"model": "llama"}, "--model: expected one of bigram, mini-gpt, nanochat, own, received 'llama'"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_its_flag(settings, message):
    with pytest.raises(ConfigError) as caught:
        resolve(settings)
    assert str(caught.value) == message


def test_choices_are_the_tables_they_choose_from():
    """They are written out in the configuration, so that `tgc --help` need not import the tables."""
    assert set(SPECS["mode"].choices) == set(ENGINES)
    assert set(SPECS["lr_schedule"].choices) == set(SCHEDULES)
    assert set(SPECS["initialisation"].choices) == set(INITIALISATIONS)
    assert set(SPECS["pre_tokenizer"].choices) == set(PATTERNS)


def test_a_resumed_run_may_train_longer_but_not_become_another_model():
    assert change(TrainingConfig(), {"steps": 5000, "layers": 4}).settings()["steps"] == 5000
    with pytest.raises(ConfigError, match="--layers: the run to resume has 4, received 5"):
        change(TrainingConfig(), {"layers": 5})


def test_a_short_run_warms_up_for_a_tenth_so_that_it_still_comes_down():
    assert resolve({"steps": 50}).settings()["warmup"] == 5
    assert resolve({"steps": 50, "warmup": 20}).settings()["warmup"] == 20
    assert resolve({"minutes": 1.0}).settings()["warmup"] == SPECS["warmup"].default


def test_a_files_warm_up_is_shortened_for_shorter_runs_and_a_users_is_not():
    assert resolve({"steps": 100}, base=read_settings("shakespeare-cpu")).settings()["warmup"] == 10
    assert resolve({"steps": 100, "warmup": 60}, base=read_settings("shakespeare-cpu")).settings()["warmup"] == 60
    assert resolve({"steps": 5000}, base=read_settings("best-small")).settings()["warmup"] == 100


def test_rates_beside_muon_need_muon_and_follow_how_large_embeddings_begin():
    with pytest.raises(
        ConfigError, match="--embedding-lr: has no effect with --optimizer adamw; it needs --optimizer muon"
    ):
        resolve({"embedding_lr": 0.1})
    rates = resolve({"optimizer": "muon"}).optimizer
    assert (
        rates.lr,
        rates.embedding_lr,
        rates.head_lr,
        rates.scalar_lr,
    ) == pytest.approx((0.02, 0.0075, 0.008, 0.5))
    assert resolve({"optimizer": "muon", "initialisation": "nanochat"}).settings()["embedding_lr"] == pytest.approx(0.3)


def test_a_run_of_a_version_that_wrote_no_number_of_tokens_is_evaluated_on_all_as_before():
    tables = TrainingConfig.of().tables()
    assert tables["run"].pop("eval_tokens") == 32_768
    assert from_saved(tables, source="x").run.eval_tokens == 0
    assert from_saved({"steps": 9}, source="x").run.eval_tokens == 0


def test_a_file_from_before_options_moved_to_the_table_of_what_computes_is_read_as_before():
    config = TrainingConfig.of(grad_accumulation=3, recompute=True, graph=False, autotune=False)
    tables = config.tables()
    for name in ("grad_accumulation", "recompute", "graph", "autotune"):
        tables["data"][name] = tables["compute"].pop(name)
    assert from_saved(tables, source="x") == config
    with pytest.raises(ConfigError, match="x: grad_accumulation is given twice"):
        from_saved({**tables, "compute": {"grad_accumulation": 4}}, source="x")
    with pytest.raises(ConfigError, match=r"x: \[optimizer\]: unknown key 'graph'"):
        from_saved({"optimizer": {"graph": False}}, source="x")


def test_one_token_to_evaluate_on_is_refused():
    with pytest.raises(ConfigError, match="--eval-tokens: expected at least 2, or 0 for all, received 1"):
        TrainingConfig.of(eval_tokens=1)
