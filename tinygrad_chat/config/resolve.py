"""Derive every setting of a run from a user's choices: a pure function of the choices and of some facts.

Later layers win: the options' own defaults, defaults for the model, a preset or file, command-line flags.
Nothing here touches the disk, the network or a device; the caller passes in the facts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from tinygrad_chat.config.defaults import DEFAULTS_FOR, SCALAR_MODE_RATES, defaults_for, rates_beside_muon
from tinygrad_chat.config.groups import OptimizerOptions
from tinygrad_chat.config.objective import GRPO
from tinygrad_chat.config.record import RECIPES, SPECS, TrainingConfig
from tinygrad_chat.config.scaling_laws import TRAINING, depth_for, settings_of_depth
from tinygrad_chat.errors import ConfigError
from tinygrad_chat.models.nanochat import NANOCHAT
from tinygrad_chat.models.options import ModelOptions
from tinygrad_chat.option import refuse_ineffective, specs_of, unmet_need, validate_settings


@dataclass(frozen=True)
class Facts:
    """Facts that settings may depend on besides the choices; None for one that was not determined.

    `vocabulary` is the size of the model's vocabulary, `product_rate` the machine's floating-point operations per
    second in matrix products, `bos` the token with which the tokenizer begins each document.
    """

    vocabulary: int | None = None
    product_rate: float | None = None
    bos: int | None = None


def needed_facts(chosen: Mapping[str, Any]) -> set[str]:
    """Return the names of the facts needed to derive the settings that are not `chosen`.

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
"""The settings of nanochat that depend on the vocabulary; all others depend on the depth and the batch only."""


def resolve(
    flags: Mapping[str, Any],
    facts: Facts = Facts(),
    *,
    base: Mapping[str, Any] | None = None,
    may_be_ineffective: Collection[str] = (),
) -> TrainingConfig:
    """Combine `flags`, which override the `base` of a preset or file, and the `facts` into one configuration.

    All settings have their flat names. Raises ConfigError, naming the flag, for a value out of range, or for an option
    without effect in such a run unless it is in `may_be_ineffective`; raises KeyError for an unknown name.
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
    defaults["warmup"] = min(defaults.get("warmup", SPECS["warmup"].default), steps // 10)  # short runs decay too
    tolerated = (base or {}).keys() - flags.keys() | set(may_be_ineffective)
    config = _built({**defaults, **_without_idle(tolerated, chosen, defaults)})
    _refuse_ineffective(config, flags, base or {}, may_be_ineffective)
    if config.schedule.warmup > config.schedule.steps:
        raise ConfigError(
            f"--warmup: expected at most --steps {config.schedule.steps}, received {config.schedule.warmup}"
        )
    return config


def merge(base: Mapping[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return a file's settings, overridden by a user's flags."""
    chosen = {**base, **flags}
    if "steps" in flags and "warmup" in base.keys() - flags.keys():
        chosen["warmup"] = min(chosen["warmup"], flags["steps"] // 10)  # the file's warmup suits another run length
    return chosen


def _built(settings: Mapping[str, Any]) -> TrainingConfig:
    recipe = RECIPES.get(settings.get("model", SPECS["model"].default), {})
    return TrainingConfig.of(**{**settings, **recipe})


def _without_idle(names: Collection[str], chosen: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the chosen settings without those of `names` that have no effect given the others."""
    settings = {name: spec.default for name, spec in SPECS.items()} | dict(defaults) | dict(chosen)
    return {
        name: value for name, value in chosen.items() if name not in names or unmet_need(SPECS[name], settings) is None
    }


def _refuse_ineffective(
    config: TrainingConfig, flags: Mapping[str, Any], base: Mapping[str, Any], may_be_ineffective: Collection[str]
) -> None:
    """Raise ConfigError for a chosen option without effect. A file's option that a flag made idle is tolerated."""
    settings = config.settings()
    strictly = [name for name in flags if name not in may_be_ineffective]
    refuse_ineffective(SPECS, strictly, settings)
    if "tokens_per_parameter" in strictly:
        _expect_one_length({**base, **flags})
    alone = {name: spec.default for name, spec in SPECS.items()} | _defaults_alone(base) | dict(base)
    alone |= RECIPES.get(alone["model"], {})
    refuse_ineffective(SPECS, [name for name in base if name not in flags and unmet_need(SPECS[name], alone)], settings)


def _defaults_alone(base: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults for a file alone, without flags, as far as they decide which of its options matter."""
    return {**defaults_for(base), **(NANOCHAT | TRAINING if base.get("model") == "nanochat" else {})}


def _expect_one_length(chosen: Mapping[str, Any]) -> None:
    if "steps" in chosen:
        raise ConfigError(
            f"--tokens-per-parameter: has no effect with --steps {chosen['steps']}; leave one of the two out"
        )


def _expect_facts(chosen: Mapping[str, Any], facts: Facts) -> None:
    missing = [name for name in sorted(needed_facts(chosen)) if getattr(facts, name) is None]
    if missing:
        raise LookupError(f"resolve: expected facts on {', '.join(missing)} for these choices, received none")


def _settings_of_nanochat(chosen: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
    """Return the settings derived from the depth or, if only minutes are chosen, from the depth that fits them."""
    small = {**DEFAULTS_FOR["scalar"], **SCALAR_MODE_RATES} if chosen.get("mode") == "scalar" else {}
    chosen = {**small, **chosen}
    vocabulary = facts.vocabulary or 1  # unknown only if nothing depends on it
    if "minutes" in chosen and "depth" not in chosen:
        chosen = {**chosen, "depth": depth_for(chosen, vocabulary, facts.product_rate or 0.0)}
    return {**settings_of_depth(chosen, vocabulary), **small}


def change(config: TrainingConfig, flags: Mapping[str, Any]) -> TrainingConfig:
    """Return a run's configuration with `flags` applied on resuming. Raises ConfigError for a setting that is fixed."""
    validate_settings(SPECS, flags)
    settings = config.settings()
    refuse_ineffective(SPECS, flags, {**settings, **flags})
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
    may_be_ineffective: Collection[str] = (),
) -> TrainingConfig:
    """Like `resolve`, for a run that starts from the weights of a `parent` run's model, whose configuration is given.

    Model and tokenizer are the parent's. Only dropout, the document mask, adapters and, unless positions are learned, a
    shorter context may be chosen. Data, engine, batch size and optimiser are inherited unless chosen, with learning
    rates scaled by FINE_TUNING, and by OF_ADAPTERS as well if adapters are trained. The schedule and all else are the
    new run's own. Raises ConfigError if a different model is chosen.
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
    config = resolve(flags, facts, base={**inherited, **(base or {})}, may_be_ineffective=may_be_ineffective)
    free = {name: getattr(config.model, name) for name in FREE}
    context = chosen.get("context", parent.model.context)
    return dataclasses.replace(config, model=dataclasses.replace(parent.model, **free, context=context))


FINE_TUNING = 0.1
"""Factor of the parent's learning rates in fine-tuning: high enough to learn new text, low enough not to forget."""

FINE_TUNING_BY_REWARD = 0.03
"""The same for learning from rewards: a batch of answers carries less information than one of texts (docs/log.md)."""

OF_ADAPTERS = 10.0
"""Further factor of the learning rates of adapters: their product begins at 0, and the other weights are frozen."""

RATES = {"lr", "embedding_lr", "head_lr", "scalar_lr"}
FREE = {"dropout", "document_mask", "document_token", "lora", "lora_alpha"}
"""The options of a model that a fine-tuning run may change, as none of the parent's weights depends on them."""

OF_THE_MODEL = {*specs_of(ModelOptions), "model", "depth", "tokenizer", "vocabulary", "pre_tokenizer"} - FREE
"""The options that cannot be changed once a model is trained."""


def _may_be_shortened(model: ModelOptions, context: int) -> bool:
    """Return whether `context` is shorter, and the model computes the same with it for as many tokens."""
    scaled = model.rotary_scaling in ("llama3", "yarn") and model.rotary_original_context is None
    return context < model.context and model.positions != "learned" and model.window_pattern is None and not scaled


def _inherited(settings: Mapping[str, Any], chosen: Mapping[str, Any]) -> set[str]:
    """Return the names of the parent's `settings` that a fine-tuning run inherits unless they are chosen."""
    names = OF_THE_MODEL | {"mode", "batch_size"}
    if chosen.get("objective") == GRPO:  # its batches are of answers, not of texts
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
