"""The model that is served, replaced by a newer checkpoint of the same run when training has written one."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tinygrad_chat.backend import available_memory
from tinygrad_chat.errors import CheckpointError, NoRoomError, TinygradChatError, UsageError
from tinygrad_chat.formatting import memory_size
from tinygrad_chat.inference.engine import PREFIX_BYTES, Engine
from tinygrad_chat.inference.load import load_model
from tinygrad_chat.models.protocol import LanguageModel
from tinygrad_chat.nn import KeyValueCache
from tinygrad_chat.runs.checkpoint import find_checkpoints
from tinygrad_chat.runs.figures import facts_of
from tinygrad_chat.runs.folder import RunFolder
from tinygrad_chat.runs.sampling import Sampling
from tinygrad_chat.runs.state import SavedModel
from tinygrad_chat.serving.options import ServingOptions
from tinygrad_chat.text.conversations import ChatTemplate
from tinygrad_chat.text.tokenizers import Tokenizer
from tinygrad_chat.tools.calculator import calculate

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Served:
    """A model with its engine, under the `name` that requests use. `step` is the number of updates it was trained for;
    `sampling` has the defaults for options that a request leaves out."""

    name: str
    engine: Engine
    sampling: Sampling = field(default_factory=Sampling)
    step: int = 0
    path: Path | None = None
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def tokenizer(self) -> Tokenizer:
        """Its tokenizer."""
        assert self.engine.tokenizer
        return self.engine.tokenizer

    @property
    def context(self) -> int:
        """The model's context length in tokens."""
        return self.engine.model.context

    @functools.cached_property
    def template(self) -> ChatTemplate | None:
        """The chat template; None if the tokenizer has no chat tokens."""
        return ChatTemplate(self.tokenizer) if can_chat(self.tokenizer) else None


def can_chat(tokenizer: Tokenizer) -> bool:
    """Return whether a tokenizer has chat tokens."""
    try:
        ChatTemplate(tokenizer)
    except UsageError:
        return False
    return True


class ModelSource:
    """Opens the model of a run for serving and, with `--follow`, each newer checkpoint.

    Raises what `load_model` does, and NoRoomError if there is too little memory for the key/value cache.
    """

    def __init__(
        self, saved: SavedModel, options: ServingOptions, *, compute: Mapping[str, Any] | None = None, say: Say
    ) -> None:
        self._options, self._compute, self._say = options, dict(compute or {}), say
        self._tried, self._folder = saved.path, saved.folder
        self.served = self._open(saved)

    def newest(self) -> Served:
        """Return the model to answer with. If a newer one cannot be opened, `say` is told, and the old one stays."""
        folder = self._folder
        if self._options.follow and folder:
            with contextlib.suppress(TinygradChatError, OSError):
                checkpoints = find_checkpoints(folder / "checkpoints")
                if checkpoints and checkpoints[-1].name != (self._tried and self._tried.name):
                    self._tried = checkpoints[-1]
                    self._take(folder)
        return self.served

    def _take(self, folder: Path) -> None:
        try:
            saved = RunFolder(folder).open_newest(SavedModel.load, say=self._say)
            if saved.path and self.served.path and saved.path.name != self.served.path.name:
                self.served = self._open(saved)
                self._say(f"now serving step {saved.step:,}")
        except (TinygradChatError, MemoryError, OSError) as error:
            self._say(f"cannot serve a newer checkpoint, keeping the current one: {error}")

    def _open(self, saved: SavedModel) -> Served:
        if saved.path is None:
            raise CheckpointError("serve: expected a model on disk")
        # Copied: if a memory-mapped file is truncated, reading it kills the process. Quantised ones are copies anyway.
        quantized = self._compute.get("weights", "float32") != "float32"
        weights = saved.weights if quantized else {name: np.array(array) for name, array in saved.weights.items()}
        model = load_model(dataclasses.replace(saved, weights=weights), **self._compute)
        engine = Engine(
            model,
            saved.tokenizer,
            rows=self._options.rows,
            tool=functools.partial(calculate, facts=facts_of(saved)) if can_chat(saved.tokenizer) else None,
            prefix_bytes=self._prefix_bytes(model),
        )
        created = int(saved.path.stat().st_mtime)
        known = {"name": saved.name, "sampling": saved.sampling, "step": saved.step, "path": saved.path}
        return Served(engine=engine, created=created, **known)

    def _prefix_bytes(self, model: LanguageModel) -> int:
        """Return the memory for the prefix cache: what the rows and the copy of the last prompt leave of the limit."""
        cache = model.new_cache(1)
        rows = (self._options.rows + 1) * cache.nbytes if isinstance(cache, KeyValueCache) else 0
        limit = self._options.cache_mib
        total = rows + PREFIX_BYTES if limit is None else limit << 20
        named = f"--rows {self._options.rows}: this many answers at a time need {memory_size(rows)} of cache"
        if limit is not None and total < rows:
            raise NoRoomError(f"{named}, and --cache-mib allows {limit:,} MiB; raise that, or choose fewer rows")
        free = available_memory()
        if total > free:
            raise NoRoomError(
                f"{named}, and {memory_size(total)} with the prefix cache; {memory_size(free)} are free; "
                "choose fewer rows or a smaller --cache-mib"
            )
        return total - rows
