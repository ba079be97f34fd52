"""A family of models that other programs know: convert its settings and the names of its weights to ours and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygrad_chat.errors import CheckpointError, TinygradChatError, UsageError
from tinygrad_chat.formatting import short_list
from tinygrad_chat.interchange.family_configs import Config
from tinygrad_chat.interchange.nanochat import swapped
from tinygrad_chat.models.options import ModelOptions
from tinygrad_chat.models.parameter_table import by_name, parameter_roles, parameter_table
from tinygrad_chat.option import flag_of

BUFFERS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")
"""Suffixes of arrays in some files that are not weights: masks, and angles that follow from the settings."""

MODEL_FIELDS = dataclasses.fields(ModelOptions)


@dataclass(frozen=True)
class Source:
    """Where one of our weights is in a family's files: `change` extracts it from the array of that `name` and
    `shape`."""

    name: str
    shape: tuple[int, ...]
    change: Callable[[Any], Any]


@dataclass(frozen=True)
class Family:
    """A kind of model, with its settings and names in transformers.

    `names` maps ours -> theirs, {} being the layer; weights of ours that share one of their names are concatenated
    there. The `transposed` ones are (inputs, outputs) there. In a `swapped` family rotary pairs rotate in the opposite
    direction. `always` are options that the whole family has; a model without them is exported with zeros for the
    missing weights.
    """

    name: str
    architecture: str
    options_from: Callable[[Config], tuple[ModelOptions, int]]
    settings: Callable[[ModelOptions, int], dict[str, Any]]
    names: Mapping[str, str]
    prefix: str
    transposed: frozenset[str] = frozenset()
    swapped: bool = False
    always: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def differences(self, options: ModelOptions, vocabulary: int) -> list[str]:
        """Return why a model does not belong to this family: a phrase for each option that differs."""
        try:
            mine = _in_full(dataclasses.replace(options, **self.always))
            theirs = _in_full(self.options_from(self.settings(options, vocabulary))[0])
        except TinygradChatError as error:
            return [str(error)]
        pairs = [(each.name, getattr(theirs, each.name), getattr(mine, each.name)) for each in MODEL_FIELDS]
        return [f"{flag_of(name)} {there} and not {here}" for name, there, here in pairs if there != here]

    def config_of(self, options: ModelOptions, vocabulary: int) -> dict[str, Any]:
        """Return a model's config.json. Raises UsageError, naming an option, if it does not belong to this family."""
        differences = self.differences(options, vocabulary)
        if differences:
            raise UsageError(f"a {self.name} has {differences[0]}")
        return {
            "architectures": [self.architecture],
            "model_type": self.name,
            "pad_token_id": None,  # else transformers' class defaults apply, and may lie outside the vocabulary
            **self.settings(options, vocabulary),
        }

    def sources(self, options: ModelOptions, vocabulary: int) -> dict[str, Source]:
        """Return where each of our weights is in this family's files, by our name."""
        table = list(by_name(parameter_table(options, vocabulary)))
        rows: dict[str, int] = {}
        starts = {}
        for name, layer, entry in table:
            theirs = self._name(entry.name, layer)
            starts[name] = rows.get(theirs, 0)
            rows[theirs] = starts[name] + entry.shape[0]

        def change_of(name: str, place: slice, transposed: bool) -> Callable[[Any], Any]:
            def change(array: Any) -> Any:
                ours = (array.T if transposed else array)[place]
                return swapped(name, ours, options) if self.swapped else ours

            return change

        sources = {}
        for name, layer, entry in table:
            theirs, transposed = self._name(entry.name, layer), entry.name in self.transposed
            shape = rows[theirs], *entry.shape[1:]
            place = slice(starts[name], starts[name] + entry.shape[0])
            shape = shape[::-1] if transposed else shape
            sources[name] = Source(theirs, shape, change_of(name, place, transposed))
        return sources

    def weights_from(self, arrays: Mapping[str, Any], options: ModelOptions, vocabulary: int) -> dict[str, Any]:
        """Return a family's `arrays` as weights by our names, as views where possible.

        Raises CheckpointError for an array that is missing, unknown or of the wrong shape.
        """
        sources = self.sources(options, vocabulary)
        there = {self._with_prefix(name): array for name, array in arrays.items()}
        wanted = {source.name: source.shape for source in sources.values()}
        missing = sorted(wanted.keys() - there.keys())
        tied = {"lm_head.weight"} if options.tied else set()
        unknown = sorted(name for name in there.keys() - wanted.keys() - tied if not name.endswith(BUFFERS))
        if missing or unknown:
            raise CheckpointError(
                f"{self.name}: missing {short_list(missing) or 'none'}, unknown {short_list(unknown) or 'none'}"
            )
        for name, shape in wanted.items():
            if tuple(there[name].shape) != shape:
                raise CheckpointError(f"{self.name}: {name} is {tuple(there[name].shape)}, expected {shape}")
        return {name: source.change(there[source.name]) for name, source in sources.items()}

    def weights_to(self, weights: Mapping[str, Any], options: ModelOptions, vocabulary: int) -> dict[str, np.ndarray]:
        """Return a model's weights, or their gradients, in this family's layout."""
        whole = dataclasses.replace(options, vocabulary_multiple=1, lora=None, **self.always)
        own = parameter_roles(options, vocabulary)
        parts: dict[str, list[np.ndarray]] = {}
        for name, layer, entry in by_name(parameter_table(whole, vocabulary)):
            there = name in own
            array = weights[name][: entry.shape[0]] if there else np.zeros(entry.shape, np.float32)  # without padding
            array = swapped(name, array, options) if self.swapped else array
            array = array.T if entry.name in self.transposed else array
            parts.setdefault(self._name(entry.name, layer), []).append(array)
        return {name: found[0] if len(found) == 1 else np.concatenate(found, axis=-1) for name, found in parts.items()}

    def _name(self, ours: str, layer: int) -> str:
        return self.names[ours].replace("{}", str(layer))

    def _with_prefix(self, name: str) -> str:
        """Return a name with the whole model's prefix, which files of the headless model leave out."""
        return name if name.startswith((self.prefix, "lm_head.")) else self.prefix + name


def _in_full(options: ModelOptions) -> ModelOptions:
    """Return the options in canonical form: defaults spelled out, and options without effect on the model reset."""
    windows = {options.window_of(layer) for layer in range(options.layers)}
    uniform = len(windows) == 1
    scaled = options.rotary_scaling != "none"
    by_pair = options.rotary_scaling in ("llama3", "yarn")
    return dataclasses.replace(
        options,
        head_width=options.head_channels,
        key_value_heads=options.key_value_heads or options.heads,
        feed_forward_width=options.feed_forward_channels,
        window=windows.pop() if uniform else options.window,
        window_pattern=None if uniform else options.window_pattern,
        rotary_base=options.rotary_base if options.positions == "rotary" else ModelOptions.rotary_base,
        rotary_factor=options.rotary_factor if scaled else ModelOptions.rotary_factor,
        rotary_original_context=options.original_context if by_pair else None,
        rotary_slow_turns=options.rotary_slow_turns if by_pair else ModelOptions.rotary_slow_turns,
        rotary_fast_turns=options.fast_turns if by_pair else None,
        rotary_attention_factor=options.attention_factor if options.rotary_scaling == "yarn" else None,
        no_rotary_every=options.no_rotary_every if options.no_rotary_every in range(1, options.layers + 1) else None,
        query_key_value_bias=options.query_key_value_bias and not options.bias,
        dropout=0.0,
        document_mask=False,
        document_token=None,
        vocabulary_multiple=1,
        lora=None,
        initialisation=ModelOptions.initialisation,
    )
