"""The parts of a run, built from its configuration: model, optimiser, schedule, training step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tinygrad_chat.backend import Compute, ProductChoices
from tinygrad_chat.config.defaults import rates_beside_muon
from tinygrad_chat.config.groups import OWN
from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.errors import ConfigError
from tinygrad_chat.models.engines import ENGINES
from tinygrad_chat.models.gpt import GPT
from tinygrad_chat.models.lora import with_adapters
from tinygrad_chat.models.memory import expect_room, expect_room_for_step
from tinygrad_chat.models.parameter_table import parameter_roles
from tinygrad_chat.models.protocol import LanguageModel
from tinygrad_chat.optim import SCHEDULES, SGD, AdamW, Group, Muon, Optimizer, Schedule, adamw_groups
from tinygrad_chat.optim.muon import run_serially
from tinygrad_chat.optim.schedule import cosine_decay, muon_momentum
from tinygrad_chat.parallel import DataParallel, ParameterShare, ThreadTeam, make_data_parallel, use_threads
from tinygrad_chat.seeds import rng
from tinygrad_chat.training.step import TrainStep

DRAWN = 2  # parameter-sized arrays while a model is built: the weights as drawn, and the buffer they are copied to
TRAINED = {"adamw": 4, "muon": 3, "sgd": 3}  # in training, at least: weights, gradient, and 2 averages, 1, a velocity


ModelMaker = Callable[[int], LanguageModel]
"""vocabulary size -> a custom model over that many tokens"""


def build_model(
    config: TrainingConfig,
    vocabulary: int,
    *,
    make: ModelMaker | None = None,
    weights: Mapping[str, Any] | None = None,
    buffers: int = DRAWN,
) -> LanguageModel:
    """Return a new model over that many tokens, or the one `make` returns, with `weights` or freshly initialised.

    Raises NoRoomError if there is no room for `buffers` arrays as long as its parameters, CheckpointError if weights do
    not fit, ConfigError if the model should be a custom one and `make` is missing, and BackendError for a missing back
    end.
    """
    if config.recipe.model == OWN:
        model = make_own(make, vocabulary, context=config.model.context)
    else:
        compute = choose_compute(config)
        on_host = buffers if compute.backend.name == "numpy" else 1  # for a GPU, the host only draws the weights
        expect_room(config.model, vocabulary, buffers=on_host, mode=config.compute.mode)
        engine, random = ENGINES[config.compute.mode], rng(config.run.seed, "initialisation")
        if weights is not None and config.model.lora:
            weights = with_adapters(config.model, vocabulary, weights, random)
        model = engine(vocabulary, config.model, random=random, compute=compute, weights=weights)
    if isinstance(model, GPT):
        model.captures_steps = config.compute.graph
    if weights is not None:
        model.parameters().load(weights)  # at full precision, even if the model computes with rounded ones
    return model


def make_own(make: ModelMaker | None, vocabulary: int, *, context: int) -> LanguageModel:
    """Return a custom model. Raises ConfigError if `make` is missing or its model has another vocabulary or context."""
    if make is None:
        raise ConfigError(
            "--model own: a custom model is built in Python, as in tinygrad_chat.train(..., model=YourModel)"
        )
    model = make(vocabulary)
    if (model.vocabulary, model.context) != (vocabulary, context):
        raise ConfigError(
            f"model: expected one of vocabulary {vocabulary} and context {context}, received {model.vocabulary} and "
            f"{model.context}"
        )
    return model


def choose_compute(config: TrainingConfig) -> Compute:
    """Return a run's back end, kernels and dtype; scalar mode always runs on the host. Raises BackendError for an
    unavailable one."""
    backend = "numpy" if config.compute.mode == "scalar" else config.compute.backend
    return Compute.choose(backend, config.compute.kernels, config.compute.dtype)


def build_for_training(
    config: TrainingConfig,
    vocabulary: int,
    make: ModelMaker | None = None,
    weights: Mapping[str, Any] | None = None,
) -> TrainStep:
    """Return the training step of a new model, in as many threads as the configuration says.

    Raises NoRoomError if there is no room for a step, and what `build_model` raises.
    """
    return build_train_step(config, *build_parallel_model(config, vocabulary, make, weights))


def build_parallel_model(
    config: TrainingConfig,
    vocabulary: int,
    make: ModelMaker | None = None,
    weights: Mapping[str, Any] | None = None,
    *,
    ranks: int = 1,
) -> tuple[LanguageModel, DataParallel | None]:
    """Return a new model to train, a replica on one of `ranks`, and the threads that compute its gradient, if any.

    Raises NoRoomError if there is no room for a step, and what `build_model` raises.
    """
    threads = use_threads(config.compute.threads)
    rows = -(-config.data.batch_size // (ranks * config.compute.grad_accumulation))
    teams = min(threads, rows) if choose_compute(config).backend.name == "numpy" else 1  # each has its own gradient
    buffers = TRAINED[config.optimizer.kind] + teams - 1
    _expect_room_for_step(config, vocabulary, rows=rows, buffers=buffers)
    model = build_model(config, vocabulary, make=make, weights=weights, buffers=buffers)
    if isinstance(model, GPT):
        model.recompute = config.compute.recompute
    return model, make_data_parallel(model, threads, rows=rows)


def _expect_room_for_step(config: TrainingConfig, vocabulary: int, *, rows: int, buffers: int) -> None:
    """Raise NoRoomError if host or device memory, wherever the arrays live, has no room for a step of `rows` rows."""
    if config.recipe.model == OWN:
        return  # unknown for a custom model
    compute = choose_compute(config)
    expect_room_for_step(
        config.model,
        vocabulary,
        rows=rows,
        buffers=buffers,
        mode=config.compute.mode,
        size=compute.array_dtype.itemsize,
        recompute=config.compute.recompute,
        available=compute.backend.memory_free(),
    )


def build_train_step(
    config: TrainingConfig,
    model: LanguageModel,
    data_parallel: DataParallel | None = None,
    share: ParameterShare | None = None,
) -> TrainStep:
    """Return a model's training step, with a new optimiser that updates all parameters or a `share` of them."""
    on_device = model.parameters().backend.name != "numpy"
    return TrainStep(
        model,
        build_optimizer(config, model, data_parallel, share),
        build_schedule(config),
        clip=config.optimizer.clip or None,
        grad_accumulation=config.compute.grad_accumulation,
        data_parallel=data_parallel,
        graphs=config.compute.graph and _can_be_captured(model),
        products=ProductChoices() if config.compute.autotune and on_device else None,
    )


def _can_be_captured(model: LanguageModel) -> bool:
    """What a custom model does on the host is unknown, and products of CuPy's own cannot be captured."""
    return isinstance(model, GPT) and model.compute.kernels != "reference"


def build_optimizer(
    config: TrainingConfig,
    model: LanguageModel,
    data_parallel: DataParallel | None = None,
    share: ParameterShare | None = None,
) -> Optimizer:
    """Return the optimiser of a run, for all parameters or a `share` of them.

    Muon rounds the factors of its products to the type of the compute weights, as nanochat does. It runs in the threads
    that compute the gradient, if any: beside multi-threaded BLAS products, threads of its own would wait for BLAS
    threads, which spin for a while after their work.
    """
    options, parameters = config.optimizer, share or model.parameters()
    if options.kind == "sgd":
        return SGD(parameters, momentum=options.momentum)
    if options.kind == "muon":
        return Muon(
            parameters,
            groups_beside_muon(config, model, [name for name, _ in parameters.masters()]),
            momentum=muon_momentum(steps=config.schedule.steps, warmdown=config.schedule.warmdown),
            weight_decay=cosine_decay(peak=options.weight_decay, steps=config.schedule.steps),
            factors=None if parameters.compute_weights is None else parameters.compute_weights.dtype,
            together=run_serially if data_parallel is None else ThreadTeam(data_parallel.threads).do,
        )
    return AdamW(parameters, betas=(options.beta1, options.beta2), weight_decay=options.weight_decay)


def groups_beside_muon(config: TrainingConfig, model: LanguageModel, names: Iterable[str]) -> list[Group]:
    """Return the groups of those parameters that AdamW updates alongside Muon. Raises ConfigError for a custom
    model."""
    if config.recipe.model == OWN:
        raise ConfigError("--optimizer muon: works only with the built-in models; choose adamw or sgd")
    options, roles = config.optimizer, parameter_roles(config.model, model.vocabulary)
    rates = {
        name: getattr(options, name) or rate
        for name, rate in rates_beside_muon(options.lr, config.model.initialisation).items()
    }
    return adamw_groups({name: roles[name] for name in names}, lr=options.lr, **rates)


def matrices_of_muon(config: TrainingConfig, model: LanguageModel) -> set[str]:
    """Return the names of the parameters that Muon updates; none with another optimiser."""
    names = list(model.parameters())
    if config.optimizer.kind != "muon":
        return set()
    return set(names) - {name for group in groups_beside_muon(config, model, names) for name in group.parameters}


def build_schedule(config: TrainingConfig) -> Schedule:
    """Return a run's learning-rate schedule."""
    schedule = config.schedule
    return SCHEDULES[schedule.lr_schedule](
        peak=config.optimizer.lr,
        minimum=schedule.min_lr,
        warmup=min(schedule.warmup, schedule.steps),  # a resumed run may have fewer steps
        steps=schedule.steps,
        warmdown=schedule.warmdown,
    )
