"""The facts that settings depend on, established once: the data is opened here and passed on to the run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

from tinygrad_chat.backend import Compute
from tinygrad_chat.config.defaults import defaults_for
from tinygrad_chat.config.record import SPECS, TrainingConfig
from tinygrad_chat.config.resolve import Facts, merge, needed_facts, resolve, resolve_from
from tinygrad_chat.machine.limits import measure_product_rate
from tinygrad_chat.option import validate_settings
from tinygrad_chat.parallel import use_threads
from tinygrad_chat.runs.consent import expect_named
from tinygrad_chat.text.corpora import settle_source
from tinygrad_chat.text.dataset import Dataset
from tinygrad_chat.text.download import Progress
from tinygrad_chat.text.mixture import Data, dataset_of
from tinygrad_chat.text.token_store import MixedStore, TokenStore
from tinygrad_chat.text.tokenizers import Tokenizer
from tinygrad_chat.training.parent import open_parent
from tinygrad_chat.training.tokens import open_tokens

OpenData = TokenStore | MixedStore | tuple[Dataset, Tokenizer]
"""Tokens of a named corpus, or a custom dataset and its tokenizer."""


def tokenizer_of(data: OpenData) -> Tokenizer:
    """Return the tokenizer of some data."""
    return data[1] if isinstance(data, tuple) else data.tokenizer


def dataset_from(data: OpenData, *, context: int) -> Data:
    """Return some data as what a model that sees `context` tokens is trained on."""
    return data[0] if isinstance(data, tuple) else dataset_of(data, context=context)


def settled(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings whose data can be read again on resuming the run; see `settle_source`."""
    return {name: settle_source(value) if name == "data" else value for name, value in settings.items()}


def resolve_with_facts(
    flags: Mapping[str, Any],
    base: Mapping[str, Any] | None = None,
    *,
    data: OpenData | None = None,
    progress: Progress | None = None,
    may_be_ineffective: Collection[str] = (),
    say: Callable[[str], None] = lambda line: None,
) -> tuple[TrainingConfig, OpenData | None]:
    """Resolve a user's settings; return them and the `data`, if it was already open or had to be opened.

    Only facts that the settings depend on are established: nanochat's depend on the vocabulary and, if only minutes are
    given, on the machine's speed at matrix products. The settings of a run that starts from another depend on that one,
    and name the exact checkpoint. `progress` reports a download, `say` damaged checkpoints; for `may_be_ineffective`
    see `resolve`. Raises CheckpointError if the weights to start from are missing, UsageError if their run uses data on
    the hub that the user has not named.
    """
    flags, base = settled(flags), settled(base or {})
    chosen = merge(base, flags)
    validate_settings(SPECS, chosen)  # before anything slow
    if chosen.get("start_from") is not None:
        parent = open_parent(chosen["start_from"], say=say)
        if "data" not in chosen and parent.folder is not None:
            expect_named(parent.folder, parent.config.data.source)
        facts, exactly = _facts_of(parent.tokenizer), {**flags, "start_from": str(parent.path)}
        return resolve_from(parent.config, exactly, facts, base=base, may_be_ineffective=may_be_ineffective), data
    needed = needed_facts(chosen)
    if not needed:
        return resolve(flags, base=base, may_be_ineffective=may_be_ineffective), data

    def setting(name: str) -> Any:
        return {**defaults_for(chosen), **chosen}.get(name, SPECS[name].default)

    if data is None:
        reading = {name: setting(name) for name in ("text_field", "encoding", "split", "vocabulary", "pre_tokenizer")}
        data = open_tokens(setting("data"), setting("tokenizer"), **reading, progress=progress)
    rate = None
    if "product_rate" in needed:
        compute = Compute.choose(setting("backend"), setting("kernels"), setting("dtype"))
        use_threads(setting("threads"))
        rate = measure_product_rate(compute)
    facts = dataclasses.replace(_facts_of(tokenizer_of(data)), product_rate=rate)
    return resolve(flags, facts, base=base, may_be_ineffective=may_be_ineffective), data


def _facts_of(tokenizer: Tokenizer) -> Facts:
    return Facts(vocabulary=tokenizer.size, bos=tokenizer.bos)
