"""A run: everything that a configuration resolves to, new or resumed. All that can be wrong is found here, before
the first file is written."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinygrad_chat.backend import Compute
from tinygrad_chat.config.scaling_laws import settings_of_imported
from tinygrad_chat.config.training import TrainingConfig, change_config, rates_beside_muon, to_settings
from tinygrad_chat.errors import CheckpointError, ConfigError, UsageError, VocabularyError
from tinygrad_chat.models.protocol import LanguageModel
from tinygrad_chat.models.registry import MODELS, build_model
from tinygrad_chat.models.scalar import estimate_step_seconds
from tinygrad_chat.models.size import expect_room
from tinygrad_chat.optim import SCHEDULES, SGD, AdamW, Muon, Optimizer, Schedule, adamw_groups
from tinygrad_chat.optim.muon import one_after_the_other
from tinygrad_chat.optim.schedule import cosine_decay, muon_momentum
from tinygrad_chat.option import checked_settings
from tinygrad_chat.parallel import DataParallel, ThreadTeam, make_data_parallel, use_threads
from tinygrad_chat.runs.checkpoint import Checkpoint, find_checkpoints
from tinygrad_chat.runs.files import expect_free
from tinygrad_chat.runs.folder import RunFolder, claim_new_run
from tinygrad_chat.seeds import rng
from tinygrad_chat.text.corpora import open_corpus
from tinygrad_chat.text.dataset import Dataset, build_tokenizer, load_dataset
from tinygrad_chat.text.download import Progress
from tinygrad_chat.text.tokenizers import Tokenizer, load_tokenizer
from tinygrad_chat.training.guards.recent_losses import RecentLosses

LONGEST_STEP = 60  # seconds that a step may take without anybody's consent

DRAWN = 2  # arrays as long as the parameters while a model is built: the weights as drawn, and where they go
TRAINED = {"adamw": 4, "muon": 3, "sgd": 3}  # at least, in training: weights, gradient, two averages, one, a velocity


@dataclass
class Run:
    """A model in training: after `step` updates and `seconds` of them, with the `best` evaluation so far."""

    config: TrainingConfig
    folder: RunFolder
    dataset: Dataset
    tokenizer: Tokenizer
    model: LanguageModel
    optimizer: Optimizer
    schedule: Schedule
    shards: DataParallel | None = None
    """The threads that compute a batch's gradient together; None: one does, and matrix products use all."""
    step: int = 0
    seconds: float = 0.0
    best_step: int | None = None
    best_loss: float | None = None
    evaluate_at: int | None = None
    """A step whose evaluation the log has lost, beside those that are due: where a finished run goes on."""
    resumed: bool = False
    saved_step: int | None = None
    """The step whose checkpoint is on disk, whole."""
    skipped_batches: int = 0
    """How many batches were passed over by rollbacks: step s trains on batch s + skipped_batches."""
    recent_losses: RecentLosses = field(default_factory=RecentLosses)

    def checkpoint(self) -> Checkpoint:
        """Return all it takes to go on from here."""
        state = {
            **first_state(self.config, self.tokenizer),
            "data": self.dataset.summary(),
            "seconds": self.seconds,
            "best_step": self.best_step,
            "best_loss": self.best_loss,
            "skipped_batches": self.skipped_batches,
            "recent_losses": dataclasses.asdict(self.recent_losses),
        }
        return Checkpoint(self.step, self.model.parameters().state(), self.optimizer.state(), state)

    def restore(self, saved: Checkpoint) -> None:
        """Go back, or on, to where `saved` was. Raises CheckpointError where it does not fit the model."""
        self.model.parameters().load(saved.weights)
        self.optimizer.load(saved.optimizer)
        self.step = self.saved_step = saved.step
        self.skipped_batches = saved.state["skipped_batches"]
        self.best_step, self.best_loss = saved.state["best_step"], saved.state["best_loss"]
        self.recent_losses = RecentLosses.load(saved.state["recent_losses"])


def first_state(config: TrainingConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return a checkpoint's state before anything was trained, on data that nobody knows."""
    return {
        "config": to_settings(config),
        "tokenizer": tokenizer.state(),
        "data": {},
        "seconds": 0.0,
        "best_step": None,
        "best_loss": None,
        "skipped_batches": 0,
        "recent_losses": dataclasses.asdict(RecentLosses()),
    }


def start_run(
    config: TrainingConfig, path: Path | None = None, *, progress: Progress | None = None, confirmed: bool = False
) -> Run:
    """Return a new run at step 0, its folder made at `path` or anew below runs/. `progress` is told of a download.

    Raises a TinygradChatError for whatever cannot work: the back end, the data, the folder; and, unless it was
    `confirmed`, UsageError for a scalar model whose steps would take minutes.
    """
    return _new_run(config, path, progress=progress, confirmed=confirmed, resumed=False)


def _new_run(
    config: TrainingConfig, path: Path | None, *, progress: Progress | None, confirmed: bool, resumed: bool
) -> Run:
    if path is not None:
        expect_free(path)
    _choose_compute(config)  # fails before any long reading
    corpus = open_corpus(config.data, text_field=config.text_field, progress=progress)
    tokenizer = build_tokenizer(config.tokenizer, corpus)
    dataset = load_dataset(corpus, tokenizer, context=config.context)
    if not confirmed:
        _expect_patience(config, tokenizer)
    run = _assemble(config, RunFolder(path) if path else None, dataset, tokenizer)
    run.resumed = resumed
    run.folder.create(resumed=resumed)
    return run


def resume_run(
    path: Path,
    changes: Mapping[str, Any],
    *,
    progress: Progress | None = None,
    confirmed: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Run:
    """Return the run at `path` at its newest whole checkpoint, with `changes` to its configuration.

    A run that was killed before its first checkpoint starts anew. `say` is told of checkpoints that are damaged.
    Raises CheckpointError where none is whole or the data has changed, ConfigError for a change that cannot be, and
    UsageError as `start_run` does.
    """
    folder = RunFolder(path)
    expect_free(path)
    if folder.config.exists() and not find_checkpoints(folder.checkpoints):
        say(f"{path}: no checkpoint yet; starting from step 0")
        config = change_config(TrainingConfig(**folder.settings()), changes)
        return _new_run(config, path, progress=progress, confirmed=confirmed, resumed=True)
    saved = folder.open_newest(say=say)
    before, tokenizer = load_config(saved), load_tokenizer(saved.state["tokenizer"])
    imported = not saved.state["data"]  # what it was trained on nobody knows
    config = settings_of_imported(before, changes, tokenizer.size) if imported else change_config(before, changes)
    if saved.step == config.steps:
        say(f"{path}: its {config.steps:,} steps are done; train on with more --steps")
    elif config.steps != before.steps and not imported:
        say(f"--steps {config.steps}: the learning rate now follows a schedule of that length, from here on")
    if config.steps < saved.step:
        raise ConfigError(f"--steps: expected at least {saved.step}, which the run has done, received {config.steps}")
    if config.minutes is not None and saved.state["seconds"] >= 60 * config.minutes:
        raise ConfigError(
            f"--minutes: expected more than the {saved.state['seconds'] / 60:.2f} that the run has used, "
            f"received {config.minutes:g}"
        )
    if not confirmed:
        _expect_patience(config, tokenizer)
    corpus = open_corpus(config.data, text_field=config.text_field, progress=progress)
    try:
        dataset = load_dataset(corpus, tokenizer, context=config.context)
    except VocabularyError as error:
        if imported:
            raise VocabularyError(f"--data {config.data}: {error}") from error
        raise _changed_data(config) from error
    if not imported and dataset.sha256 != saved.state["data"].get("sha256"):
        raise _changed_data(config)
    run = _assemble(config, folder, dataset, tokenizer)
    run.restore(saved)
    run.seconds, run.resumed = saved.state["seconds"], True
    run.evaluate_at = run.step if folder.was_evaluated(run.step) else None
    return run


def load_model(
    saved: Checkpoint,
    *,
    backend: str = "auto",
    kernels: str = "auto",
    dtype: str = "auto",
    mode: str | None = None,
) -> tuple[LanguageModel, Tokenizer]:
    """Return the model and the tokenizer of a checkpoint, for sampling or further work, on any back end.

    `mode` is the engine that is to run it, by default the one that trained it.
    """
    tokenizer = load_tokenizer(saved.state["tokenizer"])
    config = load_config(saved)
    chosen = {"backend": backend, "kernels": kernels, "dtype": dtype, "mode": mode or config.mode}
    config = dataclasses.replace(config, **chosen, dropout=0.0)
    model = _build_model(config, tokenizer, buffers=DRAWN)
    model.parameters().load(saved.weights)
    return model, tokenizer


def load_config(saved: Checkpoint) -> TrainingConfig:
    """Return the configuration that a checkpoint was made with."""
    settings = checked_settings(TrainingConfig, saved.state["config"], source="the checkpoint's state.json")
    return TrainingConfig(**settings)


def _assemble(config: TrainingConfig, folder: RunFolder | None, dataset: Dataset, tokenizer: Tokenizer) -> Run:
    threads, rows = use_threads(config.threads), config.batch_size // config.accumulate
    gradients = min(threads, rows)  # each thread has its own
    model = _build_model(config, tokenizer, buffers=TRAINED[config.optimizer] + gradients - 1)
    shards = make_data_parallel(model, threads, rows=rows)
    optimizer, schedule = build_optimizer(config, model, shards), build_schedule(config)
    return Run(config, folder or claim_new_run(config), dataset, tokenizer, model, optimizer, schedule, shards)


def _choose_compute(config: TrainingConfig) -> Compute:
    backend = "numpy" if config.mode == "scalar" else config.backend  # Values live in Python
    return Compute.choose(backend, config.kernels, config.dtype)


def _changed_data(config: TrainingConfig) -> CheckpointError:
    return CheckpointError(
        f"--data {config.data}: has changed since the run began (its SHA-256 differs); restore it, or start a new run"
    )


def _expect_patience(config: TrainingConfig, tokenizer: Tokenizer) -> None:
    if config.mode != "scalar":
        return
    tokens = config.batch_size * config.context
    seconds = estimate_step_seconds(MODELS[config.model](config), vocabulary=tokenizer.size, tokens=tokens)
    if seconds > LONGEST_STEP:
        raise UsageError(
            f"--mode scalar: a step of {tokens} tokens at --width {config.width} and --layers {config.layers} "
            f"would take about {seconds / 60:.0f} minutes; choose smaller ones, or add --yes to go on"
        )


def _build_model(config: TrainingConfig, tokenizer: Tokenizer, *, buffers: int) -> LanguageModel:
    """Build the model, having made sure that the machine has room for `buffers` arrays as long as its parameters."""
    compute = _choose_compute(config)
    on_host = buffers if compute.backend.name == "numpy" else 1  # for a GPU, weights are only drawn here
    expect_room(MODELS[config.model](config), tokenizer.size, buffers=on_host, mode=config.mode)
    return build_model(
        config.model,
        tokenizer.size,
        config,
        mode=config.mode,
        compute=compute,
        random=rng(config.seed, "initialisation"),
    )


def build_optimizer(config: TrainingConfig, model: LanguageModel, shards: DataParallel | None = None) -> Optimizer:
    """Return the optimiser of a run, which has not taken a step yet. Muon works in as many threads as the shards do:
    beside products that take several, threads of its own would wait for theirs, which spin for a while."""
    parameters = model.parameters()
    if config.optimizer == "sgd":
        return SGD(parameters, momentum=config.momentum)
    if config.optimizer == "muon":
        rates = {
            name: getattr(config, name) or rate
            for name, rate in rates_beside_muon(config.lr, config.initialisation).items()
        }
        return Muon(
            parameters,
            adamw_groups({name: parameters[name].shape for name in parameters}, lr=config.lr, **rates),
            momentum=muon_momentum(steps=config.steps, warmdown=config.warmdown),
            weight_decay=cosine_decay(peak=config.weight_decay, steps=config.steps),
            together=one_after_the_other if shards is None else ThreadTeam(shards.threads).do,
        )
    return AdamW(parameters, betas=(config.beta1, config.beta2), weight_decay=config.weight_decay)


def build_schedule(config: TrainingConfig) -> Schedule:
    """Return a run's learning rate by its step."""
    return SCHEDULES[config.lr_schedule](
        peak=config.lr,
        minimum=config.min_lr,
        warmup=min(config.warmup, config.steps),  # a resumed run may have fewer steps
        steps=config.steps,
        warmdown=config.warmdown,
    )
