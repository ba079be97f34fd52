"""The package's front door: train, load, sample.

import tinygrad_chat

model = tinygrad_chat.train("pydoc", steps=500)
print("".join(model.generate("The ", max_new_tokens=100)))
same = tinygrad_chat.load(model.path)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinygrad_chat.config.groups import OWN
from tinygrad_chat.config.record import SPECS, TrainingConfig
from tinygrad_chat.errors import ConfigError
from tinygrad_chat.inference.load import load_model
from tinygrad_chat.inference.text_model import TextModel
from tinygrad_chat.models.protocol import LanguageModel
from tinygrad_chat.option import checked_settings
from tinygrad_chat.runs.folder import open_checkpoint
from tinygrad_chat.runs.state import SavedModel
from tinygrad_chat.text.corpora import Corpus
from tinygrad_chat.text.data import tokenize
from tinygrad_chat.text.dataset import Dataset
from tinygrad_chat.text.tokenizers import NumberTokenizer, Tokenizer
from tinygrad_chat.training.events import Event
from tinygrad_chat.training.facts import OpenData, resolve_with_facts
from tinygrad_chat.training.loop import train as train_run
from tinygrad_chat.training.run import resume_run, start_run

Make = Callable[[int], LanguageModel]


def train(
    data: str | Sequence[str] | Dataset = "pydoc",
    *,
    model: str | Make = "mini-gpt",
    tokenizer: str | Tokenizer = "characters",
    out: str | Path | None = None,
    resume: bool = False,
    watch: Callable[[Event], object] = lambda event: None,
    **settings: Any,
) -> TextModel:
    """Train a model and return it; the run is kept in a folder, at `out` or anew below runs/.

    `data` is a text file, a folder or a built-in name, texts, each a document, or a `Dataset` of one's own. `model` is
    a name, or makes one's own of a vocabulary: its class will do (`NextTokenModel`). Further `settings` are the options
    of `tgc train` with underscores, as in `batch_size=32`. With `resume` the run at `out` goes on. `watch` is called
    with each event, such as `training.events.Logged`. Raises a TinygradChatError, in one line, for what cannot be.
    """
    settings = checked_settings(SPECS, settings, source="train")
    make = None if isinstance(model, str) else model
    path = None if out is None else Path(out)
    opened = _open(data, tokenizer)
    if resume:
        if path is None:
            raise ConfigError("resume: expected out, the folder of the run that is to go on; received none")
        run = resume_run(path, settings, data=opened, model=make)
    else:
        config, opened = _resolve(data, model, tokenizer, opened, settings)
        run = start_run(config, path, data=opened, model=make)
    for event in train_run(run):
        watch(event)
    return TextModel(run.model, run.tokenizer, run.config, str(run.folder.path))


def _open(data: str | Sequence[str] | Dataset, tokenizer: str | Tokenizer) -> OpenData | None:
    """Return data of one's own with its tokenizer; None for what has a name."""
    if isinstance(data, str):
        return None
    if isinstance(data, Dataset):
        if not isinstance(tokenizer, str):
            return data, tokenizer
        largest = int(max(np.max(part, initial=0) for part in (data.training, data.validation)))
        return data, NumberTokenizer(largest + 2, bos=largest + 1)
    return tokenize(Corpus("texts", lambda any_bytes=False: ([text] for text in data)), tokenizer)


def _resolve(
    data: str | Sequence[str] | Dataset,
    model: str | Make,
    tokenizer: str | Tokenizer,
    opened: OpenData | None,
    settings: dict[str, Any],
) -> tuple[TrainingConfig, OpenData | None]:
    named: dict[str, Any] = {"model": model} if isinstance(model, str) else {"model": OWN}
    if isinstance(tokenizer, str):
        named["tokenizer"] = tokenizer
    if isinstance(data, str):
        named["data"] = data
    if not isinstance(model, str) and "context" not in settings:
        named["context"] = model(2).context
    chosen = {**named, **settings}
    return resolve_with_facts(chosen, data=opened)


def load(
    path: str | Path | None = None,
    *,
    model: Make | None = None,
    backend: str = "auto",
    kernels: str = "auto",
    dtype: str = "auto",
    mode: str | None = None,
) -> TextModel:
    """Open a trained model: a run's folder, its name below runs/, or one of its checkpoints; by default the newest run.

    One of your own is made anew by `model`(vocabulary). Raises CheckpointError where there is none, or it is damaged.
    """
    saved = open_checkpoint(None if path is None else Path(path).expanduser(), SavedModel.load, say=_be_quiet)
    opened = load_model(saved, backend=backend, kernels=kernels, dtype=dtype, mode=mode, make=model)
    return TextModel(opened, saved.tokenizer, saved.config, "" if path is None else str(path))


def load_tokenizer(path: str | Path | None = None) -> Tokenizer:
    """Return the tokenizer of a run or a checkpoint, by default of the newest run: `encode`, `decode`, `decode_stream`.

    Raises CheckpointError where there is none.
    """
    return open_checkpoint(None if path is None else Path(path).expanduser(), SavedModel.load, say=_be_quiet).tokenizer


def _be_quiet(line: str) -> None:
    """Pass over a damaged checkpoint without a word: a whole one is opened instead, or an error is raised."""
