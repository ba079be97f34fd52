"""Resolving is pure: choices and facts in, a configuration out; and what has no effect is refused by name."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import pytest

from tinygrad_chat.config.files import read_settings
from tinygrad_chat.config.record import SPECS, TrainingConfig, flat_settings, from_saved
from tinygrad_chat.config.resolve import Facts, change, needed_facts, resolve, resolve_from
from tinygrad_chat.errors import ConfigError

PURELY = """
import builtins, os, socket, sys
sys.path.insert(0, {path!r})
import tinygrad_chat.config.resolve, tinygrad_chat.config.record  # their own code may be read
original = builtins.__import__

def importing(name, *rest):
    if name.partition(".")[0] in {{"numpy", "cupy", "numba", "psutil"}}:
        raise AssertionError("imported " + name)
    return original(name, *rest)

def shut(event, arguments):
    if event in {{"open", "socket.__new__", "subprocess.Popen", "os.listdir", "os.mkdir", "ctypes.dlopen"}}:
        raise AssertionError(event + " " + repr(arguments))

builtins.__import__ = importing
sys.addaudithook(shut)
from tinygrad_chat.config.resolve import Facts, resolve
for settings in (
    {{}},
    {{"model": "bigram", "mode": "scalar"}},
    {{"optimizer": "muon", "minutes": 2.0}},
    {{"model": "nanochat", "minutes": 5.0}},
    {{"model": "nanochat", "depth": 12, "mode": "scalar"}},
):
    resolve(settings, Facts(vocabulary=104, product_rate=3e11)).tables()
assert "numpy" not in sys.modules
print("pure")
"""


def test_resolving_imports_no_numpy_and_touches_no_disk_network_or_device():
    program = PURELY.format(path=sys.path[0])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("pure\n", "")


def test_facts_that_are_missing_are_an_error_of_ours_and_are_said_beforehand():
    assert needed_facts({"model": "mini-gpt"}) == set()
    assert needed_facts({"model": "nanochat"}) == {"vocabulary"}
    assert needed_facts({"model": "nanochat", "minutes": 1.0}) == {"vocabulary", "product_rate"}
    assert needed_facts({"model": "nanochat", "batch_size": 1, "steps": 1, "weight_decay": 0.0}) == set()
    with pytest.raises(LookupError, match="expected facts on product_rate for these choices"):
        resolve({"model": "nanochat", "minutes": 1.0}, Facts(vocabulary=5))


@pytest.mark.parametrize("model", ["mini-gpt", "nanochat"])
def test_masked_documents_begin_with_the_tokenizers_bos(model):
    chosen = {"model": model, "document_mask": True}
    assert "bos" in needed_facts(chosen)
    assert resolve(chosen, Facts(vocabulary=5, bos=3)).model.document_token == 3


IDLE: list[tuple[dict[str, Any], str]] = [
    ({"optimizer": "sgd", "beta2": 0.9}, "--beta2: has no effect with --optimizer sgd; it needs --optimizer adamw"),
    ({"optimizer": "muon", "beta1": 0.9}, "--beta1: has no effect with --optimizer muon; it needs --optimizer adamw"),
    ({"momentum": 0.9}, "--momentum: has no effect with --optimizer adamw; it needs --optimizer sgd"),
    ({"optimizer": "sgd", "weight_decay": 0.1}, "--weight-decay: has no effect with --optimizer sgd"),
    ({"model": "bigram", "smear": True}, "--smear: has no effect with --model bigram; it needs --model mini-gpt"),
    ({"model": "bigram", "layers": 4}, "--layers: has no effect with --model bigram; it needs --model mini-gpt"),
    ({"model": "bigram", "heads": 1}, "--heads: has no effect with --model bigram"),
    ({"rotary_base": 100.0}, "--rotary-base: has no effect with --positions learned; it needs --positions rotary"),
    ({"bias": True, "query_key_value_bias": True}, "--query-key-value-bias: has no effect with --bias True"),
    ({"rotary_factor": 2.0}, "--rotary-factor: has no effect with --rotary-scaling none; it needs --rotary-scaling"),
    ({"norm": "none", "norm_gain": True}, "--norm-gain: has no effect with --norm none"),
    ({"lr_schedule": "constant", "min_lr": 0.0}, "--min-lr: has no effect with --lr-schedule constant"),
    ({"mode": "scalar", "dropout": 0.0}, "--dropout: has no effect with --mode scalar; it needs --mode tensor"),
    ({"norm": "none", "embedding_norm": True}, "--embedding-norm: has no effect with --norm none"),
    ({"mode": "scalar", "threads": 2}, "--threads: has no effect with --mode scalar; it needs --mode tensor"),
    ({"mode": "scalar", "kernels": "numpy"}, "--kernels: has no effect with --mode scalar; it needs --mode tensor"),
    ({"model": "own", "norm": "rmsnorm"}, "--norm: has no effect with --model own; it needs --model bigram, mini-gpt"),
    ({"model": "own", "width": 8}, "--width: has no effect with --model own"),
    ({"model": "own", "soft_cap": 2.0}, "--soft-cap: has no effect with --model own"),
    ({"model": "own", "initialisation": "gpt2"}, "--initialisation: has no effect with --model own"),
    ({"model": "own", "mode": "scalar"}, "--mode: has no effect with --model own"),
    ({"depth": 3}, "--depth: has no effect with --model mini-gpt; it needs --model nanochat"),
]


@pytest.mark.parametrize(("settings", "message"), IDLE)
def test_an_option_that_plays_no_part_is_refused_in_one_line_that_says_what_it_needs(settings, message):
    """Even at its default: who sets it expects something of it."""
    with pytest.raises(ConfigError) as caught:
        resolve(settings)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="has no effect"):
        resolve({}, base=settings)


def test_what_a_file_chose_and_a_flag_made_impossible_is_let_be_too():
    assert resolve({"mode": "scalar"}, base={"dropout": 0.2}).model.dropout == 0
    with pytest.raises(ConfigError, match="--dropout"):
        resolve({"mode": "scalar", "dropout": 0.2})
    with pytest.raises(ConfigError, match="--dropout"):
        resolve({}, base={"mode": "scalar", "dropout": 0.2})


def test_what_a_file_chose_and_a_flag_made_idle_is_let_be():
    preset = read_settings("shakespeare-cpu")
    assert "beta2" in preset
    assert resolve({"optimizer": "sgd"}, base=preset).optimizer.kind == "sgd"
    assert resolve({"mode": "scalar", "batch_size": 1}, base=preset).compute.mode == "scalar"
    with pytest.raises(ConfigError, match="--beta1: has no effect"):
        resolve({"optimizer": "sgd", "beta1": 0.9}, base=preset)


@pytest.mark.parametrize(
    ("base", "flags", "refused"),
    [
        ({"model": "nanochat", "embedding_lr": 0.2}, {"optimizer": "adamw"}, None),
        ({"model": "nanochat", "rotary_base": 50.0}, {"positions": "none"}, None),
        ({"model": "bigram", "norm_epsilon": 0.1}, {}, "--norm-epsilon: has no effect with --norm none"),
        ({"model": "bigram", "rotary_base": 50.0}, {}, "--rotary-base: has no effect with --positions none"),
        ({"model": "bigram", "norm_epsilon": 0.1}, {"norm": "rmsnorm"}, None),
    ],
)
def test_what_plays_a_part_in_a_file_is_asked_of_the_defaults_of_its_own_model(base, flags, refused):
    facts = Facts(vocabulary=100)
    if refused is None:
        assert resolve(flags, facts, base=base)
    else:
        with pytest.raises(ConfigError, match=refused):
            resolve(flags, facts, base=base)


def test_a_length_is_chosen_once():
    both = {"steps": 10, "tokens_per_parameter": 3.0}
    facts = Facts(vocabulary=100)
    with pytest.raises(ConfigError, match="--tokens-per-parameter: has no effect with --steps 10; leave one"):
        resolve({"model": "nanochat", **both}, facts)
    with pytest.raises(ConfigError, match="--tokens-per-parameter: has no effect with --steps 10; leave one"):
        resolve({"tokens_per_parameter": 3.0}, facts, base={"model": "nanochat", "steps": 10})
    assert resolve({}, facts, base={"model": "nanochat", **both}).schedule.steps == 10  # as a run's own file says


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"momentum": 0.5}, "--momentum: has no effect with --optimizer adamw; it needs --optimizer sgd"),
        ({"momentum": 0.9}, "--momentum: has no effect with --optimizer adamw; it needs --optimizer sgd"),
        ({"beta2": 0.5}, "--beta2: the run to resume has 0.99, received 0.5"),
        ({"steps": 0}, "--steps: expected at least 1, received 0"),
    ],
)
def test_a_resumed_run_refuses_what_plays_no_part_and_what_is_fixed(flags, message):
    with pytest.raises(ConfigError) as caught:
        change(TrainingConfig(), flags)
    assert str(caught.value).startswith(message)


def test_a_resumed_run_takes_other_steps_and_what_it_has_already():
    assert change(TrainingConfig(), {"steps": 9, "beta2": 0.99}).schedule.warmup == 9


NANOCHAT = resolve({"model": "nanochat", "depth": 1}, Facts(vocabulary=100))
MINI = resolve({"width": 32, "dropout": 0.1, "lr": 0.01, "batch_size": 5, "beta2": 0.95, "steps": 70, "seed": 9})
FROM = {"start_from": "runs/a"}


@pytest.mark.parametrize(
    ("parent", "flags", "message"),
    [
        (NANOCHAT, {"lr": 0.0}, "--lr: expected more than 0, received 0.0"),
        (NANOCHAT, {"tokens_per_parameter": float("nan")}, "--tokens-per-parameter: expected a finite number, rece"),
        (NANOCHAT, {"model": "bigram"}, "--model: the model of runs/a has nanochat, received bigram; leave it out, or"),
        (NANOCHAT, {"depth": 3}, "--depth: the model of runs/a has 1, received 3"),
        (NANOCHAT, {"width": 64}, "--width: the model of runs/a has 128, received 64"),
        (NANOCHAT, {"beta2": 0.9}, "--beta2: has no effect with --optimizer muon"),
        (NANOCHAT, {"lr_schedule": "constant", "warmdown": 0.5}, "--warmdown: has no effect with --lr-schedule const"),
        (NANOCHAT, {"steps": 5, "tokens_per_parameter": 3.0}, "--tokens-per-parameter: has no effect with --steps 5"),
        (MINI, {"tokenizer": "bytes"}, "--tokenizer: the model of runs/a has auto, received bytes"),
        (MINI, {"depth": 2}, "--depth: the model of runs/a has none, received 2"),
        (MINI, {"momentum": 0.5}, "--momentum: has no effect with --optimizer adamw"),
    ],
)
def test_what_contradicts_a_trained_model_is_refused_in_one_line(parent, flags, message):
    for chosen in ({**FROM, **flags}, {**flags, **FROM}):
        with pytest.raises(ConfigError) as caught:
            resolve_from(parent, chosen, Facts(vocabulary=100))
        assert str(caught.value).startswith(message)
        assert "\n" not in str(caught.value)


def test_a_fine_tuned_run_has_its_parents_model_and_update_rule_at_a_tenth_of_its_rate_and_a_schedule_of_its_own():
    config = resolve_from(MINI, FROM)
    assert config.model == MINI.model
    assert config.optimizer == dataclasses.replace(MINI.optimizer, lr=0.1 * 0.01)
    assert config.data == MINI.data
    assert (config.schedule, config.run) == (TrainingConfig().schedule, TrainingConfig().run)
    assert config.recipe.start_from == "runs/a"
    assert resolve_from(MINI, {**FROM, "lr": 0.5}).optimizer.lr == 0.5
    assert resolve_from(MINI, {**FROM, "dropout": 0.4}).model == dataclasses.replace(MINI.model, dropout=0.4)
    assert resolve_from(MINI, {**FROM, "mode": "scalar"}).model == dataclasses.replace(MINI.model, dropout=0.0)
    assert resolve_from(MINI, {**FROM, "width": 32, "norm": "layernorm"}).model == MINI.model  # as it is
    assert resolve_from(MINI, {**FROM, "optimizer": "sgd"}).optimizer.lr == 4e-3  # a rule of its own
    assert resolve_from(MINI, {**FROM, "data": "other", "text_field": "x"}).data.source == "other"


ROTARY = resolve({"positions": "rotary", "context": 64})


def test_a_model_that_turns_its_positions_may_learn_in_a_shorter_context():
    assert resolve_from(ROTARY, FROM).model.context == 64
    assert resolve_from(ROTARY, {**FROM, "context": 16}).model == dataclasses.replace(ROTARY.model, context=16)


@pytest.mark.parametrize(
    ("parent", "context"),
    [
        (ROTARY, 65),
        (resolve({"context": 64}), 16),
        (resolve({"positions": "rotary", "context": 64, "window": 8, "window_pattern": "SL"}), 16),
        (resolve({"positions": "rotary", "context": 64, "rotary_scaling": "llama3"}), 16),
    ],
    ids=["longer", "learned", "windows that follow from it", "turns that follow from it"],
)
def test_any_other_context_is_refused(parent: TrainingConfig, context: int):
    with pytest.raises(ConfigError, match=f"^--context: the model of runs/a has 64, received {context}; leave it out"):
        resolve_from(parent, {**FROM, "context": context})


def test_a_fine_tuned_nanochat_follows_its_laws_at_a_tenth_of_its_rates():
    config = resolve_from(NANOCHAT, FROM, Facts(vocabulary=100))
    assert (config.model, config.schedule.steps) == (NANOCHAT.model, NANOCHAT.schedule.steps)
    for name in ("lr", "embedding_lr", "head_lr", "scalar_lr"):
        assert getattr(config.optimizer, name) == pytest.approx(getattr(NANOCHAT.optimizer, name) / 10)
    few, many = (
        resolve_from(NANOCHAT, {**FROM, "tokens_per_parameter": ratio}, Facts(vocabulary=100)) for ratio in (3.0, 30.0)
    )
    assert few.schedule.steps < many.schedule.steps
    assert resolve_from(NANOCHAT, {**FROM, "optimizer": "adamw"}, Facts(vocabulary=100)).optimizer.kind == "adamw"


@pytest.mark.parametrize("parent", [NANOCHAT, MINI, resolve({"model": "bigram"}), resolve({"mode": "scalar"})])
def test_a_fine_tuned_runs_own_file_resolves_to_the_same_run(parent):
    config = resolve_from(parent, FROM, Facts(vocabulary=100))
    assert resolve_from(parent, {}, Facts(vocabulary=100), base=config.used_settings()) == config
    assert from_saved(config.tables(), source="x") == config


def test_every_need_names_an_option_and_values_that_it_can_have():
    for spec in SPECS.values():
        for need in spec.needs:
            assert set(need.values) < set(SPECS[need.name].choices or (True, False)), spec.name


def test_tables_and_flat_names_say_the_same():
    tables = {
        "recipe": {"model": "bigram"},
        "optimizer": {"kind": "sgd", "lr": 1},
        "data": {"source": "x", "batch-size": 3},
    }
    flat = {"model": "bigram", "optimizer": "sgd", "lr": 1.0, "data": "x", "batch_size": 3}
    assert flat_settings(tables, source="c.toml") == flat_settings(flat, source="c.toml") == flat
    assert flat_settings({"accumulate": 2, "keep": 3}, source="c.toml") == {
        "grad_accumulation": 2,
        "keep_checkpoints": 3,
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"optimiser": {"lr": 1.0}},
            "c.toml: expected one of the tables recipe, model, data, optimizer, schedule, compute, run",
        ),
        ({"optimizer": {"lrr": 1.0}}, "c.toml: [optimizer]: unknown key 'lrr'; did you mean lr?"),
        ({"optimizer": {"lr": "high"}}, "c.toml: [optimizer] lr: expected float, received 'high'"),
        ({"optimizer": {"optimizer": "sgd"}}, "c.toml: [optimizer]: unknown key 'optimizer'; did you mean kind?"),
        ({"recipe": {"zzz": 1}}, "c.toml: [recipe]: unknown key 'zzz'; expected one of model, depth, tokens_per_"),
        ({"optimizer": [{"lr": 1.0}]}, "c.toml: expected a table [optimizer], received an array of them, [[optimizer]"),
        ({"lr": 1.0, "optimizer": {"lr": 1.0}}, "c.toml: lr is given twice"),
    ],
)
def test_a_table_that_cannot_be_is_refused_by_its_key(content, message):
    with pytest.raises(ConfigError) as caught:
        flat_settings(content, source="c.toml")
    assert str(caught.value).startswith(message)
