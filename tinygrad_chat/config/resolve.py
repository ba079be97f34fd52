"""From what a user chose to a run's every setting: a pure function of the choices and of some facts.

Later layers win: the options' own defaults, what suits the model, a preset or file, command-line flags.
Nothing here touches the disk, the network or a device; whoever knows the facts hands them in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from tinygrad_chat.config.defaults import DEFAULTS_FOR, RATES_OF_VALUES, defaults_for, rates_beside_muon
from tinygrad_chat.config.groups import OptimizerOptions
from tinygrad_chat.config.objective import GRPO
from tinygrad_chat.config.record import RECIPES, SPECS, TrainingConfig
from tinygrad_chat.config.scaling_laws import TRAINING, depth_for, settings_of_depth
from tinygrad_chat.errors import ConfigError
from tinygrad_chat.models.nanochat import NANOCHAT
from tinygrad_chat.models.options import ModelOptions
from tinygrad_chat.option import idle, refuse_idle, specs_of, validate_settings


@dataclass(frozen=True)
class Facts:
    """What settings may follow from beside the choices; None where nobody has looked.

    `vocabulary` is the tokens that the model is to know, `product_rate` the floating-point operations a second that the
    machine does in matrix products, `bos` the token with which the tokenizer begins each document.
    """

    vocabulary: int | None = None
    product_rate: float | None = None
    bos: int | None = None


def needed_facts(chosen: Mapping[str, Any]) -> set[str]:
    """Return the names of the facts that the settings follow from, beside the `chosen` ones.

    >>> sorted(needed_facts({"model": "nanochat", "minutes": 5.0}))
    ['product_rate', 'vocabulary']
    """
    masked = {"bos"} if chosen.get("document_mask") and "document_token" not in chosen else set()
    if chosen.get("model") != "nanochat":
        return masked
    if "minutes" in chosen and "depth" not in chosen:
        return masked | {"product_rate", "vocabulary"}
    return masked if chosen.keys() >= OF_THE_VOCABULARY else masked | {"vocabulary"}


OF_THE_VOCABULARY = {"batch_size", "steps", "weight_decay"}
"""The settings of nanochat that follow from the vocabulary; all others follow from the depth and the batch."""


def resolve(
    flags: Mapping[str, Any],
    facts: Facts = Facts(),
    *,
    base: Mapping[str, Any] | None = None,
    may_be_idle: Collection[str] = (),
) -> TrainingConfig:
    """Combine `flags`, over the `base` of a preset or file, and the `facts` into one configuration.

    All settings go by their flat names. Raises ConfigError, naming the flag, for a value out of range or an option that
    plays no part in such a run, unless it is among those that `may_be_idle`, and KeyError for an unknown name.
    """
    chosen = merge(base or {}, flags)
    validate_settings(SPECS, chosen)
    _expect_facts(chosen, facts)
    masked = {"document_token": facts.bos} if chosen.get("document_mask") else {}
    defaults = {**defaults_for(chosen), **masked}
    if chosen.get("model") == "nanochat":
        defaults = {**defaults, **_settings_of_nanochat({**masked, **chosen}, facts)}
    settings = {**defaults, **chosen}
    if settings.get("optimizer") == "muon":
        initialisation = settings.get("initialisation", ModelOptions.initialisation)
        defaults = {**rates_beside_muon(settings["lr"], initialisation), **defaults}
    steps = chosen.get("steps", defaults.get("steps", SPECS["steps"].default))
    defaults["warmup"] = min(defaults.get("warmup", SPECS["warmup"].default), steps // 10)  # short runs fall too
    tolerated = (base or {}).keys() - flags.keys() | set(may_be_idle)
    config = _built({**defaults, **_without_idle(tolerated, chosen, defaults)})
    _refuse_idle(config, flags, base or {}, may_be_idle)
    if config.schedule.warmup > config.schedule.steps:
        raise ConfigError(
            f"--warmup: expected at most --steps {config.schedule.steps}, received {config.schedule.warmup}"
        )
    return config


def merge(base: Mapping[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a file with a user's flags over them."""
    chosen = {**base, **flags}
    if "steps" in flags and "warmup" in base.keys() - flags.keys():
        chosen["warmup"] = min(chosen["warmup"], flags["steps"] // 10)  # a file's, for runs of another length
    return chosen


def _built(settings: Mapping[str, Any]) -> TrainingConfig:
    recipe = RECIPES.get(settings.get("model", SPECS["model"].default), {})
    return TrainingConfig.of(**{**settings, **recipe})


def _without_idle(names: Collection[str], chosen: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the chosen settings without those, among `names`, that play no part beside the others."""
    settings = {name: spec.default for name, spec in SPECS.items()} | dict(defaults) | dict(chosen)
    return {name: value for name, value in chosen.items() if name not in names or idle(SPECS[name], settings) is None}


def _refuse_idle(
    config: TrainingConfig, flags: Mapping[str, Any], base: Mapping[str, Any], may_be_idle: Collection[str]
) -> None:
    """Raise ConfigError for a chosen option that plays no part. What a file chose and a flag made idle is let be."""
    settings = config.settings()
    strictly = [name for name in flags if name not in may_be_idle]
    refuse_idle(SPECS, strictly, settings)
    if "tokens_per_parameter" in strictly:
        _expect_one_length({**base, **flags})
    alone = {name: spec.default for name, spec in SPECS.items()} | _defaults_alone(base) | dict(base)
    alone |= RECIPES.get(alone["model"], {})
    refuse_idle(SPECS, [name for name in base if name not in flags and idle(SPECS[name], alone)], settings)


def _defaults_alone(base: Mapping[str, Any]) -> dict[str, Any]:
    """Return a file's defaults, were there no flags, as far as they say which of its options play a part."""
    return {**defaults_for(base), **(NANOCHAT | TRAINING if base.get("model") == "nanochat" else {})}


def _expect_one_length(chosen: Mapping[str, Any]) -> None:
    if "steps" in chosen:
        raise ConfigError(
            f"--tokens-per-parameter: plays no part with --steps {chosen['steps']}; leave one of the two out"
        )


def _expect_facts(chosen: Mapping[str, Any], facts: Facts) -> None:
    missing = [name for name in sorted(needed_facts(chosen)) if getattr(facts, name) is None]
    if missing:
        raise LookupError(f"resolve: expected facts on {', '.join(missing)} for these choices, received none")


def _settings_of_nanochat(chosen: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
    """Return what follows from the depth or, where there are only minutes, from the depth that suits them."""
    small = {**DEFAULTS_FOR["scalar"], **RATES_OF_VALUES} if chosen.get("mode") == "scalar" else {}
    chosen = {**small, **chosen}
    vocabulary = facts.vocabulary or 1  # where nothing depends on it
    if "minutes" in chosen and "depth" not in chosen:
        chosen = {**chosen, "depth": depth_for(chosen, vocabulary, facts.product_rate or 0.0)}
    return {**settings_of_depth(chosen, vocabulary), **small}


def change(config: TrainingConfig, flags: Mapping[str, Any]) -> TrainingConfig:
    """Return a run's configuration with what a resumed run may change. Raises ConfigError for the rest."""
    validate_settings(SPECS, flags)
    settings = config.settings()
    refuse_idle(SPECS, flags, {**settings, **flags})
    for name, value in flags.items():
        if SPECS[name].fixed and value != settings[name]:
            raise ConfigError(
                f"{SPECS[name].flag}: the run to resume has {settings[name]}, received {value}; "
                "leave it out, or start a new run"
            )
    steps = flags.get("steps", config.schedule.steps)
    return config.replace(**{"warmup": min(config.schedule.warmup, steps), **flags})


def resolve_from(
    parent: TrainingConfig,
    flags: Mapping[str, Any],
    facts: Facts = Facts(),
    *,
    base: Mapping[str, Any] | None = None,
    may_be_idle: Collection[str] = (),
) -> TrainingConfig:
    """Do as `resolve` for a run that begins with the weights of another one's model, whose configuration is `parent`.

    The model and what a token is are the parent's, but for dropout, the document mask, adapters and, where no position
    is learned, a shorter context. So are, unless others are chosen, the data, the engine, the batch size and the update
    rule, at FINE_TUNING of its learning rates, at OF_ADAPTERS times that with adapters, which begin anew. The schedule
    and all else are the new run's own. Raises ConfigError where another model is chosen, too.
    """
    chosen = merge(base or {}, flags)
    validate_settings(SPECS, chosen)
    settings = {**parent.settings(), "start_from": chosen.get("start_from")}
    for name in chosen:
        shortened = name == "context" and _may_be_shortened(parent.model, chosen[name])
        if name in OF_THE_MODEL and chosen[name] != settings[name] and not shortened:
            raise ConfigError(
                f"{SPECS[name].flag}: the model of {settings['start_from']} has {settings[name] or 'none'}, received "
                f"{chosen[name]}; leave it out, or train a new model without --from"
            )
    inherited = {name: settings[name] for name in parent.used_settings() if name in _inherited(settings, chosen)}
    share = FINE_TUNING_BY_REWARD if chosen.get("objective") == GRPO else FINE_TUNING
    share *= OF_ADAPTERS if chosen.get("lora") else 1.0
    inherited |= {name: share * rate for name, rate in inherited.items() if name in RATES}
    config = resolve(flags, facts, base={**inherited, **(base or {})}, may_be_idle=may_be_idle)
    free = {name: getattr(config.model, name) for name in FREE}
    context = chosen.get("context", parent.model.context)
    return dataclasses.replace(config, model=dataclasses.replace(parent.model, **free, context=context))


FINE_TUNING = 0.1
"""The share of a run's learning rates that its model is trained on at: enough to learn another text, little enough to
keep what it knows."""

FINE_TUNING_BY_REWARD = 0.03
"""The same where a model learns from rewards: a batch of answers says less than one of texts (docs/log.md)."""

OF_ADAPTERS = 10.0
"""How much larger the rates of adapters are: they begin at 0, and the weights beside them stay."""

RATES = {"lr", "embedding_lr", "head_lr", "scalar_lr"}
FREE = {"dropout", "document_mask", "document_token", "lora", "lora_alpha"}
"""The options of a model that another run may choose anew, as no weight of its parent depends on them."""

OF_THE_MODEL = {*specs_of(ModelOptions), "model", "depth", "tokenizer", "vocabulary", "pre_tokenizer"} - FREE
"""What cannot be chosen for a model that has been trained."""


def _may_be_shortened(model: ModelOptions, context: int) -> bool:
    """Return whether a model computes with that shorter context what it does with its own, for as many tokens."""
    scaled = model.rotary_scaling in ("llama3", "yarn") and model.rotary_original_context is None
    return context < model.context and model.positions != "learned" and model.window_pattern is None and not scaled


def _inherited(settings: Mapping[str, Any], chosen: Mapping[str, Any]) -> set[str]:
    """Return the names of what a fine-tuned run has of its parent's `settings` where nothing else is chosen."""
    names = OF_THE_MODEL | {"mode", "batch_size"}
    if chosen.get("objective") == GRPO:  # a batch of answers is no batch of texts
        names -= {"batch_size"}
    if "document_mask" not in chosen:
        names |= {"document_mask", "document_token"}
    if chosen.get("mode", settings["mode"]) != "scalar":
        names |= {"dropout"}
    if "data" not in chosen:
        names |= {"data", "text_field", "encoding", "split"}
    if chosen.get("optimizer", settings["optimizer"]) == settings["optimizer"]:
        names |= specs_of(OptimizerOptions).keys()
    return names
