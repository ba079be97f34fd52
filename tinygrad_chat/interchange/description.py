"""Describe a model of this or another program, for `tgc inspect`. Its weights are not read."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tinygrad_chat.config.groups import OWN
from tinygrad_chat.errors import UsageError
from tinygrad_chat.files import explained, is_folder, list_folder
from tinygrad_chat.interchange.families import family_for
from tinygrad_chat.interchange.family import MODEL_FIELDS
from tinygrad_chat.interchange.gguf_export import expect_gguf
from tinygrad_chat.interchange.huggingface_export import expect_huggingface
from tinygrad_chat.interchange.nanochat import nanochat_config
from tinygrad_chat.models.memory import cache_memory, memory_to_answer
from tinygrad_chat.models.options import ModelOptions
from tinygrad_chat.runs.checkpoint import WEIGHTS
from tinygrad_chat.runs.state import SavedModel
from tinygrad_chat.text.conversations import ChatTemplate
from tinygrad_chat.text.tokenizers import BPETokenizer
from tinygrad_chat.text.tokenizers.turns import NANOCHAT

PARTS = {
    "embeddings": ("token_embedding.", "position_embedding.", "value_embeddings."),
    "attention": (".attention.",),
    "feed-forward": (".feed_forward.",),
    "head": ("head.",),
}
"""Substrings of the names of each part's weights; one without a leading dot must begin the name."""
REST = "norms and scales"
STORED_AS = {"float64": "F64", "float32": "F32", "float16": "F16"}
EXPORTS: dict[str, Callable[[SavedModel], Any]] = {
    "huggingface": expect_huggingface,
    "gguf": expect_gguf,
    "nanochat": lambda saved: nanochat_config(saved.config.model, saved.tokenizer.size),
}
"""For each program, a check that raises UsageError if a model cannot be exported to it."""
OWN_MODEL = "custom models cannot be exported"


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A weight by our name, and how its numbers are stored."""

    name: str
    shape: tuple[int, ...]
    kind: str

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class Description:
    """Everything that is reported about a model.

    `what` is its kind, `path` its place, `bytes` its size on disk. `parts` and `stored` count its parameters, by part
    of the model and by number format. `options` are those that differ from the default. `chats` says whose chat
    template it has, None without one. `memory` is the bytes that inference takes, by --weights, and `cache` those of
    the key/value cache for a full context on top; both are unknown for a user's own model. `exports` says for each
    program why it cannot open the model, None if it can.
    """

    what: str
    path: str
    step: int
    seconds: float
    bytes: int
    family: str | None
    architecture: str | None
    shape: Mapping[str, int]
    options: Mapping[str, Any]
    parameters: int
    parts: Mapping[str, int]
    stored: Mapping[str, int]
    tokenizer: Mapping[str, Any]
    chats: str | None
    sampling: Mapping[str, Any]
    memory: Mapping[str, int]
    cache: int | None
    exports: Mapping[str, str | None]
    tensors: tuple[Tensor, ...]

    def to_json(self, *, tensors: bool) -> dict[str, Any]:
        """Return it as JSON-serialisable values, with or without its `tensors`."""
        record = dataclasses.asdict(self)
        return record if tensors else {name: value for name, value in record.items() if name != "tensors"}


def describe_model(saved: SavedModel) -> Description:
    """Return the description of a model opened from disk. Raises StorageError if its files cannot be accessed."""
    assert saved.path is not None
    options, own = saved.config.model, saved.config.recipe.model == OWN
    tensors = tuple(_tensor(name, array) for name, array in saved.weights.items())
    family = None if own else _tried(lambda: family_for(options, saved.tokenizer.size))[0]
    return Description(
        what=_what(saved),
        path=str(saved.path),
        step=saved.step,
        seconds=saved.progress.seconds,
        bytes=_bytes_on_disk(saved),
        family=family and family.name,
        architecture=family and family.architecture,
        shape={} if own else _shape(options),
        options={} if own else _options(options),
        parameters=sum(tensor.size for tensor in tensors),
        parts=_counted(tensors, lambda tensor: _part_of(tensor.name)),
        stored=_counted(tensors, lambda tensor: tensor.kind),
        tokenizer=_tokenizer(saved),
        chats=_template(saved),
        sampling=saved.sampling.settings(),
        memory={} if own else memory_to_answer(options, saved.tokenizer.size),
        cache=None if own else cache_memory(options),
        exports={
            program: OWN_MODEL if own else _tried(partial(expect, saved))[1] for program, expect in EXPORTS.items()
        },
        tensors=tensors,
    )


def _tried(make: Callable[[], Any]) -> tuple[Any, str | None]:
    """Return the result of `make`, or the message of its UsageError."""
    try:
        return make(), None
    except UsageError as error:
        return None, str(error)


def _what(saved: SavedModel) -> str:
    assert saved.path is not None
    if not saved.of_another_program:
        return "checkpoint"
    return "Hugging Face folder" if is_folder(saved.path, follow=True) else "GGUF file"


def _bytes_on_disk(saved: SavedModel) -> int:
    """Return the bytes of a model's weights, over all files."""
    assert saved.path is not None
    with explained(saved.path, "read"):
        if not saved.of_another_program:
            return (saved.path / WEIGHTS).stat().st_size
        files: list[Path] = [saved.path]
        if is_folder(saved.path, follow=True):
            files = [path for path in list_folder(saved.path, follow=True) if path.suffix == ".safetensors"]
        return sum(path.stat().st_size for path in files)


def _tensor(name: str, array: Any) -> Tensor:
    kind = getattr(array, "kind", None) or STORED_AS.get(str(array.dtype), str(array.dtype))
    return Tensor(name=name, shape=tuple(array.shape), kind=kind)


def _part_of(name: str) -> str:
    for part, beginnings in PARTS.items():
        if any(each in name if each.startswith(".") else name.startswith(each) for each in beginnings):
            return part
    return REST


def _counted(tensors: tuple[Tensor, ...], key: Callable[[Tensor], str]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for tensor in tensors:
        found[key(tensor)] += tensor.size
    return dict(found)


def _shape(options: ModelOptions) -> dict[str, int]:
    """Return a model's sizes, including those left to their default."""
    return {
        "layers": options.layers,
        "heads": options.heads,
        "head_width": options.head_channels,
        "key_value_heads": options.key_value_heads or options.heads,
        "width": options.width,
        "feed_forward_width": options.feed_forward_channels,
        "context": options.context,
    }


def _options(options: ModelOptions) -> dict[str, Any]:
    values = {each.name: (getattr(options, each.name), each.default) for each in MODEL_FIELDS}
    return {
        name: value
        for name, (value, default) in values.items()
        if value != default and name not in _shape(options) and name not in ("initialisation", "dropout")
    }


def _tokenizer(saved: SavedModel) -> dict[str, Any]:
    tokenizer = saved.tokenizer
    names = {number: name for name, number in tokenizer.special_tokens.items()}
    found: dict[str, Any] = {"kind": tokenizer.kind, "size": tokenizer.size, "bos": names[tokenizer.bos]}
    if isinstance(tokenizer, BPETokenizer):
        found |= {"pre_tokenizer": tokenizer.pattern, "merges": len(tokenizer.merges)}
    return found | {"ends": sorted(names[number] for number in tokenizer.stop_tokens)}


def _template(saved: SavedModel) -> str | None:
    """Return whose chat template a model has, None without one."""
    if saved.taught_to_chat is False:
        return None
    try:
        turns = ChatTemplate(saved.tokenizer).turns
    except UsageError:
        return None
    return "nanochat's" if turns == NANOCHAT else "its own"
