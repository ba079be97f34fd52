"""The package's front door: train, load, sample.

import tinygrad_chat

model = tinygrad_chat.train("pydoc", steps=500)
print("".join(model.generate("The ", max_new_tokens=100)))
same = tinygrad_chat.load(model.path)
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinygrad_chat.config.groups import OWN
from tinygrad_chat.config.record import SPECS, TrainingConfig
from tinygrad_chat.errors import CheckpointError, ConfigError, UsageError
from tinygrad_chat.evaluation.answers import ROWS, evaluate_task
from tinygrad_chat.files import user_path
from tinygrad_chat.inference.engine import Engine
from tinygrad_chat.inference.load import load_model
from tinygrad_chat.inference.text_model import TextModel
from tinygrad_chat.interchange.opening import open_model
from tinygrad_chat.option import checked_settings, validate_settings
from tinygrad_chat.parallel.joining import started_ranks
from tinygrad_chat.runs.figures import calculator_of
from tinygrad_chat.runs.lookup import open_checkpoint
from tinygrad_chat.runs.scores import TaskResult
from tinygrad_chat.runs.state import SavedModel
from tinygrad_chat.runs.tokenizer import open_tokenizer
from tinygrad_chat.tasks import Task, open_task
from tinygrad_chat.text.conversations import Conversation
from tinygrad_chat.text.corpora import corpus_of_conversations, corpus_of_texts
from tinygrad_chat.text.data import open_sources, tokenize
from tinygrad_chat.text.dataset import Dataset
from tinygrad_chat.text.split import AUTO
from tinygrad_chat.text.tokenizers import BPETokenizer, NumberTokenizer, Tokenizer
from tinygrad_chat.training.build import ModelMaker
from tinygrad_chat.training.events import Event
from tinygrad_chat.training.facts import OpenData, resolve_with_facts, settled
from tinygrad_chat.training.loop import train as train_run
from tinygrad_chat.training.run import resume_run, start_run
from tinygrad_chat.training.tokens import tokenizer_called

Data = str | os.PathLike[str] | Sequence[str] | Sequence[os.PathLike[str]] | Sequence[Conversation] | Dataset


def train(
    data: Data | None = None,
    *,
    model: str | ModelMaker | None = None,
    tokenizer: str | Tokenizer | None = None,
    start_from: str | Path | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    watch: Callable[[Event], object] = lambda event: None,
    **settings: Any,
) -> TextModel:
    """Train a model and return it; the run is saved in a folder, `out` or a new one below runs/.

    `data` is anything that `--data` accepts, such as a file or a folder; or paths; or texts, each a document; or
    conversations; or your own `Dataset`. `model` is a name, or a function that builds your own model from a vocabulary
    size, such as its class (`NextTokenModel`). Further `settings` are the options of `tgc train` with underscores, as
    in `batch_size=32`; those not given keep their defaults. With `start_from`, a run or a checkpoint, that model is
    fine-tuned in a new run. With `resume` the run at `out` continues with its own settings, except for those given here
    that may change; there is a warning for each damaged file in it. `watch` is called with each event, such as
    `training.events.Logged`. Raises a TinygradChatError, in one line, for what is not possible, and where several
    ranks were started: those need `tgc train`.
    """
    if started_ranks() > 1:
        raise UsageError(f"train: {started_ranks()} ranks were started; only tgc train can train with several")
    if isinstance(data, os.PathLike):
        data = os.fspath(data)
    elif isinstance(data, Sequence) and data and all(isinstance(each, os.PathLike) for each in data):
        settings["data"], data = [os.fspath(each) for each in data if isinstance(each, os.PathLike)], None
    if start_from is not None:
        settings["start_from"] = os.fspath(start_from)
    settings = {**_named(data, model, tokenizer), **settled(checked_settings(SPECS, settings, source="train"))}
    make = None if isinstance(model, str) else model
    path = None if out is None else user_path(out)
    if resume:
        if path is None:
            raise ConfigError("resume: expected out, the folder of the run to resume, received none")
        split = AUTO
        with contextlib.suppress(CheckpointError):  # a run without a checkpoint starts over
            saved = open_checkpoint(path, SavedModel.load, say=lambda line: None)  # reported below
            tokenizer, split = tokenizer or saved.tokenizer, saved.config.data.split
        known = None if isinstance(tokenizer, str) else tokenizer
        own = _open_own(data, tokenizer, {**settings, "split": split})
        damaged: list[str] = []
        run = resume_run(path, settings, data=own, model=make, tokenizer=known, warn=damaged.append)
        for line in damaged:
            warnings.warn(line, stacklevel=2)
    else:
        if tokenizer is None and start_from is not None and not (data is None or isinstance(data, str)):
            tokenizer = load_tokenizer(start_from)
        if make is not None and "context" not in settings:
            settings["context"] = make(2).context
        config, opened = _resolve(settings, data, tokenizer)
        run = start_run(config, path, data=opened, model=make)
    for event in train_run(run):
        watch(event)
    return TextModel(run.model, run.tokenizer, run.config, str(run.folder.path), run.calculator)


def _named(data: Data | None, model: str | ModelMaker | None, tokenizer: str | Tokenizer | None) -> dict[str, Any]:
    """Return the arguments that are options, by option name."""
    named: dict[str, Any] = {}
    if isinstance(data, str):
        named["data"] = data
    if model is not None:
        named["model"] = model if isinstance(model, str) else OWN
    if isinstance(tokenizer, str):
        named["tokenizer"] = tokenizer
    return named


def _resolve(
    settings: dict[str, Any], data: Data | None, tokenizer: str | Tokenizer | None
) -> tuple[TrainingConfig, OpenData | None]:
    """Return a new run's configuration and, if it is already open, its data."""
    opened = _open_own(data, tokenizer, settings)
    if tokenizer is not None and not isinstance(tokenizer, str):
        if tokenizer.kind in SPECS["tokenizer"].choices:
            settings = {**settings, "tokenizer": tokenizer.kind}
        if isinstance(tokenizer, BPETokenizer):
            least = int(SPECS["vocabulary"].minimum or 0)
            settings = {**settings, "vocabulary": max(tokenizer.size, least), "pre_tokenizer": tokenizer.pattern}
        if opened is None:
            validate_settings(SPECS, settings)  # before anything slow begins
            source = settings.get("data", SPECS["data"].default)
            reading = {name: settings.get(name, SPECS[name].default) for name in ("text_field", "encoding", "split")}
            opened = open_sources(source, tokenizer, **reading)
    return resolve_with_facts(settings, data=opened)


def _open_own(data: Data | None, tokenizer: str | Tokenizer | None, settings: Mapping[str, Any]) -> OpenData | None:
    """Return the caller's own data with its tokenizer; None for data given by name. `settings` say how to split it."""
    if data is None or isinstance(data, str):
        return None
    if not isinstance(data, Dataset):
        own: Any = data
        chats = bool(own) and isinstance(own[0], Conversation)
        corpus = corpus_of_conversations(own) if chats else corpus_of_texts(own)
        split = settings.get("split", AUTO)
        chosen: str | Tokenizer = tokenizer or SPECS["tokenizer"].default
        if isinstance(chosen, str):
            vocabulary, pattern = (settings.get(name, SPECS[name].default) for name in ("vocabulary", "pre_tokenizer"))
            chosen = tokenizer_called(chosen, vocabulary, lambda: [corpus], pre_tokenizer=pattern, split=split)
        return tokenize(corpus, chosen, split)
    if tokenizer is not None and not isinstance(tokenizer, str):
        return data, tokenizer
    largest = int(max(np.max(part, initial=0) for part in (data.training, data.validation)))
    return data, NumberTokenizer(largest + 2, bos=largest + 1)


def load(
    path: str | Path | None = None,
    *,
    model: ModelMaker | None = None,
    backend: str = "auto",
    kernels: str = "auto",
    dtype: str = "auto",
    mode: str | None = None,
    weights: str = "float32",
    graph: bool = True,
) -> TextModel:
    """Open a trained model: a run's folder, its name below runs/, or one of its checkpoints; by default the newest run.

    Another program's model is opened in place: a Hugging Face folder, a GGUF file, hub:owner/name, smollm2. One of your
    own is rebuilt by `model`(vocabulary). `weights` says how matrices are stored: as float32, as float16 in half the
    memory or as int8 in a quarter; the last two are faster, but have no gradient. With `graph`, a GPU replays the step
    of one token as a CUDA graph. There is a warning for each damaged checkpoint newer than the one opened, and for
    anything a model has to do without. Raises CheckpointError if there is no checkpoint or it is damaged.
    """
    damaged: list[str] = []
    saved = open_model(None if path is None else user_path(path), say=damaged.append)
    for line in damaged:
        warnings.warn(line, stacklevel=2)
    computing: dict[str, Any] = {"backend": backend, "kernels": kernels, "dtype": dtype, "mode": mode}
    opened = load_model(saved, **computing, weights=weights, graph=graph, make=model)
    checkpoint = saved.path or Path()
    named = saved.of_another_program or (path is not None and Path(path).name == checkpoint.name)
    source = str(checkpoint if named else checkpoint.parent.parent)
    return TextModel(opened, saved.tokenizer, saved.config, source, calculator_of(saved))


def evaluate(
    model: TextModel | str | Path | None = None,
    task: str | Task = "sentences",
    *,
    count: int = 100,
    seed: int = 1,
    tools: bool = True,
    run_programs: bool = False,
    examples: int = 3,
) -> TaskResult:
    """Ask a model, a TextModel or anything that `load` accepts, `count` problems of a task.

    `task` is a name in `tinygrad_chat.tasks.TASKS`, a file such as "mine.py", or an object of your own with the
    interface of `tasks.Task`. The result has `accuracy`, its standard `error`, `centred` and that many `examples`. The
    model may use a calculator unless `tools` is off; programs that it writes are run only with `run_programs`. Raises
    UsageError for an invalid task, and for a model that was not made for chats.
    """
    opened = model if isinstance(model, TextModel) else load(model)
    engine = Engine(opened.model, opened.tokenizer, rows=ROWS, tool=opened.calculator if tools else None)
    asked = open_task(task) if isinstance(task, str) else task
    return evaluate_task(engine, asked, count=count, seed=seed, run_programs=run_programs, examples=examples)


def load_tokenizer(path: str | Path | None = None) -> Tokenizer:
    """Return a tokenizer: `encode`, `decode`, `decode_stream`.

    `path` is a run or a checkpoint, by default the newest run; or a `tokenizer.json`, a folder that contains one, or a
    file of tiktoken ranks. Raises CheckpointError, in one line, if there is no usable tokenizer.
    """
    return open_tokenizer(None if path is None else user_path(path))
