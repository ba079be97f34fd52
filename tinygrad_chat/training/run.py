"""A run, new or resumed: everything that a configuration resolves to. Errors are found here, before the first file is
written."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tinygrad_chat.config.groups import AUTO
from tinygrad_chat.config.record import SPECS, TrainingConfig
from tinygrad_chat.config.resolve import change
from tinygrad_chat.errors import UsageError
from tinygrad_chat.files import expect_free, is_there
from tinygrad_chat.formatting import quoted
from tinygrad_chat.models.protocol import LanguageModel, Predictor
from tinygrad_chat.parallel import Communicator
from tinygrad_chat.runs.checkpoint import find_checkpoints
from tinygrad_chat.runs.consent import note_data
from tinygrad_chat.runs.figures import calculator_of
from tinygrad_chat.runs.folder import RunFolder, claim_new_run
from tinygrad_chat.runs.log import Marks
from tinygrad_chat.runs.sampling import Sampling
from tinygrad_chat.runs.state import Progress, TrainingState
from tinygrad_chat.text.download import Progress as DownloadProgress
from tinygrad_chat.text.mixture import Data
from tinygrad_chat.text.tokenizers import Tokenizer
from tinygrad_chat.training.batches import Batches, Drawn
from tinygrad_chat.training.build import ModelMaker, choose_compute
from tinygrad_chat.training.distributed import lead
from tinygrad_chat.training.evaluation import HeldOut
from tinygrad_chat.training.facts import OpenData, dataset_from, settled, tokenizer_of
from tinygrad_chat.training.parent import describe_parent, open_data_for, open_parent
from tinygrad_chat.training.refusals import (
    expect_named_data,
    expect_outside,
    expect_packed,
    expect_patience,
    expect_same_tokenizer,
)
from tinygrad_chat.training.reinforcement import Reinforcement, open_reinforcement
from tinygrad_chat.training.resumption import is_finished, reopen_data
from tinygrad_chat.training.step import TrainStep
from tinygrad_chat.training.tokens import open_chosen

OWN_DATA = "own"  # a key of a checkpoint's data
HANDED_OVER = {"data": "handed over in Python"}  # the same in environment.json, which exists before any checkpoint


@dataclass
class Run:
    """A model in training: its fixed parts and its progress."""

    config: TrainingConfig
    folder: RunFolder
    dataset: Data
    tokenizer: Tokenizer
    train_step: TrainStep
    progress: Progress = field(default_factory=Progress)
    reinforcement: Reinforcement | None = None
    """The source of its batches if it learns from rewards instead of data."""
    evaluate_at: int | None = None
    """A step to evaluate again besides those that are due: resuming there cuts its evaluation off the log."""
    resumed: bool = False
    own_data: bool = False
    """Whether its data was passed in from Python, so that no name can reopen it."""
    finished: bool = False
    """Whether it had already ended and no more is asked of it."""
    parent: Mapping[str, Any] = field(default_factory=dict)
    """The checkpoint that its initial weights came from; empty if they were freshly initialised."""
    sampling: Sampling = field(default_factory=Sampling)
    """The sampling settings that the parent's makers recommend."""
    saved_step: int | None = None
    """The step of the complete checkpoint on disk."""
    log: Marks | None = None
    """What the log held at that checkpoint; None without a checkpoint."""
    stopped_early: bool = False
    """Whether that checkpoint exists only because the run was stopped there; none was due at that step."""

    @property
    def model(self) -> LanguageModel:
        """The model being trained."""
        return self.train_step.model

    @property
    def predictor(self) -> Predictor:
        """What to evaluate the model with: the threads and ranks that train it, if there are several."""
        return self.train_step.predictor

    @property
    def evaluation_tokens(self) -> tuple[HeldOut, ...]:
        """What it is evaluated on: held-out tokens, or rows of conversations, with the same limit for each source."""
        parts, limit, context = self.dataset.parts, self.config.run.eval_tokens, self.config.model.context
        most = max(limit // len(parts), 2) if limit else None  # one token predicts none
        return tuple(
            part.validation[:most] if part.chats is None else part.validation_rows(context=context).first(most)
            for part in parts
        )

    @property
    def calculator(self) -> Callable[[str], str]:
        """The calculator tool of its model in a chat, which knows the model's figures as of now."""
        return calculator_of(self.state({}).model)

    @functools.cached_property
    def batch(self) -> Batches:
        """The batches of its data, by number."""
        return Batches(self.dataset, self.config)

    def draw(self, number: int) -> Drawn:
        """Return what the step of that number trains on; with rewards, these are answers by the current model."""
        if self.reinforcement is None:
            return Drawn(self.batch(number))
        return self.reinforcement.draw(number, self.train_step)

    def state(self, log: Marks | None = None) -> TrainingState:
        """Return all it takes to continue from here, with the log as it is now or as `log` marks it."""
        return TrainingState(
            config=self.config,
            tokenizer=self.tokenizer,
            weights=self.model.parameters().state(),
            optimizer=self.train_step.optimizer_state(),
            data={**self.dataset.summary(), **({OWN_DATA: True} if self.own_data else {})},
            parent=self.parent,
            sampling=self.sampling,
            log=self.folder.lines.marks() if log is None else log,
            progress=copy.deepcopy(self.progress),
        )

    def restore(self, state: TrainingState) -> None:
        """Go to `state`, backwards or forwards; time already spent still counts.

        Raises CheckpointError if it does not fit the model.
        """
        self.train_step.restore(state.weights, state.optimizer)
        seconds = max(self.progress.seconds, state.progress.seconds)
        self.progress = dataclasses.replace(copy.deepcopy(state.progress), seconds=seconds)
        self.saved_step, self.log = state.step, state.log


def start_run(
    config: TrainingConfig,
    path: Path | None = None,
    *,
    data: OpenData | None = None,
    model: ModelMaker | None = None,
    progress: DownloadProgress | None = None,
    confirmed: bool = False,
    communicator: Communicator | None = None,
) -> Run:
    """Return a new run at step 0; its folder is created at `path`, or below runs/ under a new name.

    `data` is custom data, or data that is already open; `model` makes a custom model. `progress` reports a download.
    With a `communicator` this is rank 0, which leads the others.
    Raises a TinygradChatError for anything that cannot work: the back end, the data, the folder; and, unless
    `confirmed`, UsageError for a scalar model whose steps would take minutes.
    """
    own = isinstance(data, tuple) or (data is not None and data.source != config.data.name)
    how = _How(model, progress, confirmed, communicator)
    return _new_run(config, path, how, data=data, own_data=own, resumed=False)


class _How(NamedTuple):
    """The options of `start_run` and `resume_run` that `_new_run` needs, too."""

    model: ModelMaker | None
    progress: DownloadProgress | None
    confirmed: bool
    communicator: Communicator | None


def _new_run(
    config: TrainingConfig, path: Path | None, how: _How, *, data: OpenData | None, own_data: bool, resumed: bool
) -> Run:
    if path is not None:
        expect_free(path)
        expect_outside(path, config)
    choose_compute(config)  # fails before data is read, which may take long
    start_from = config.recipe.start_from
    parent = None if start_from is None else open_parent(start_from)
    if data is None and parent is not None:
        data = open_data_for(parent, config.data, progress=how.progress)
    opened = data or open_chosen(config.data, config.data.tokenizer, progress=how.progress)
    dataset, tokenizer = dataset_from(opened, context=config.model.context), tokenizer_of(opened)
    if parent is not None:
        expect_same_tokenizer(tokenizer, parent.tokenizer, str(start_from))
    if config.data.tokenizer == AUTO and tokenizer.kind in SPECS["tokenizer"].choices:
        config = config.replace(tokenizer=tokenizer.kind)
    config = config.replace(split=dataset.split, **({"data": dataset.source} if own_data else {}))
    expect_packed(dataset, config)
    if not how.confirmed:
        expect_patience(config, tokenizer)
    reinforcement = open_reinforcement(config, tokenizer)
    train_step = lead(config, tokenizer.size, how.model, parent and parent.weights, how.communicator)
    folder = RunFolder(path) if path else claim_new_run(config)
    folder.create(resumed=resumed)
    note_data(folder.path, config.data.source)
    described = {} if parent is None else describe_parent(parent)
    run = Run(config, folder, dataset, tokenizer, train_step, resumed=resumed, own_data=own_data, parent=described)
    run.reinforcement = reinforcement
    run.sampling = parent.sampling if parent else Sampling()
    return run


def resume_run(
    path: Path,
    changes: Mapping[str, Any],
    *,
    data: OpenData | None = None,
    model: ModelMaker | None = None,
    tokenizer: Tokenizer | None = None,
    progress: DownloadProgress | None = None,
    confirmed: bool = False,
    communicator: Communicator | None = None,
    say: Callable[[str], None] = lambda line: None,
    warn: Callable[[str], None] | None = None,
) -> Run:
    """Return the run at `path` at its newest complete checkpoint, with `changes` to its configuration by flat names.

    `data`, `model` and `tokenizer` are those of a run that was started with custom ones. A run that was killed before
    its first checkpoint starts over. `say` reports a run that is `finished`, and `warn`, by default the same, damaged
    checkpoints and logs. Raises CheckpointError if no checkpoint is complete or the data has changed, VocabularyError
    for another tokenizer, ConfigError for an impossible change, and UsageError as `start_run` does or for data on the
    hub that the user has not named.
    """
    warn = warn or say
    folder, changes = RunFolder(path), settled(changes)
    expect_free(path)
    if not find_checkpoints(folder.checkpoints) and is_there(folder.config):
        config = change(folder.read_config(), changes)
        own = data is not None
        if not own and "data" not in changes:
            handed_over = any(entry.items() >= HANDED_OVER.items() for entry in folder.environments())
            expect_named_data(config, path, own=handed_over)
        say(f"{path}: no checkpoint yet; starting from step 0")
        for problem in folder.lines.problems(None, 0):
            warn(problem)
        if data is None and tokenizer is not None:
            data = open_chosen(config.data, tokenizer, progress=progress)
        how = _How(model, progress, confirmed, communicator)
        return _new_run(config, path, how, data=data, own_data=own, resumed=True)
    saved = folder.open_newest(TrainingState.load, say=warn)
    if not saved.data:
        raise UsageError(
            f"{path}: was imported, and has no training to resume; fine-tune its model in a new run with: "
            f"tgc train --from {quoted(path)} --data TEXT"
        )
    before = saved.config
    config = change(before, changes)
    finished = is_finished(config, saved, folder, changes, say=say)
    if not confirmed:
        expect_patience(config, saved.tokenizer)
    given = tokenizer if data is None else tokenizer_of(data)
    if given is not None:
        expect_same_tokenizer(given, saved.tokenizer, str(path))
    if data is None and "data" not in changes:
        expect_named_data(config, path, own=bool(saved.data.get(OWN_DATA)))
    config, dataset = reopen_data(config, saved, data, progress=progress)
    note_data(path, config.data.source)
    train_step = lead(config, saved.tokenizer.size, model, saved.weights, communicator)
    run = Run(
        config,
        folder,
        dataset,
        saved.tokenizer,
        train_step,
        resumed=True,
        own_data=data is not None,
        parent=saved.parent,
        sampling=saved.sampling,
        finished=finished,
        reinforcement=open_reinforcement(config, saved.tokenizer),
    )
    run.restore(saved)
    for problem in folder.lines.problems(saved.log, saved.step):
        warn(problem)
    run.evaluate_at = saved.step if folder.was_evaluated(saved.step) else None
    run.stopped_early = run.evaluate_at is None and not before.saves_at(saved.step)
    return run
