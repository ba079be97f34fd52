"""Open a Hugging Face folder as a model: options from config.json, memory-mapped weights, tokenizer, chat template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tinygrad_chat.files import is_there, read_plain
from tinygrad_chat.interchange.chats import Say, named_template, with_chat_template
from tinygrad_chat.interchange.families import family_of
from tinygrad_chat.interchange.foreign import foreign_model
from tinygrad_chat.interchange.huggingface_files import (
    CONFIG,
    GENERATION,
    TEMPLATE,
    expect_layers,
    explained_files,
    map_arrays,
    read_settings,
)
from tinygrad_chat.interchange.sampling import sampling_of_huggingface
from tinygrad_chat.runs.state import SavedModel
from tinygrad_chat.text.conversations.probing import LONGEST_TEMPLATE
from tinygrad_chat.text.tokenizers import NumberTokenizer, Tokenizer
from tinygrad_chat.text.tokenizers.files import SETTINGS, TOKENIZER, read_tokenizer


def open_huggingface(folder: Path, *, say: Say) -> SavedModel:
    """Return the model in a folder; its weights stay in their files until they are used.

    `say` reports whatever of the model cannot be used. Raises CheckpointError, in one line, if something is missing or
    does not fit, or if the architecture or an option is not supported.
    """
    with explained_files(folder):
        config, arrays = read_settings(folder, CONFIG), map_arrays(folder)
        expect_layers(config, arrays)
        family = family_of(config)
        options, vocabulary = family.options_from(config)
        weights = family.weights_from(arrays, options, vocabulary)
        generation = read_settings(folder, GENERATION)
        sampling = sampling_of_huggingface(generation, f"{folder / GENERATION}", say=say)
        tokenizer = _tokenizer(folder, vocabulary, ends=[generation, config], say=say)
    return foreign_model(folder, options, vocabulary, weights, tokenizer, sampling)


def _tokenizer(folder: Path, vocabulary: int, *, ends: list[dict[str, Any]], say: Say) -> Tokenizer:
    """Return a folder's tokenizer. The settings in `ends` name the tokens that end a text."""
    if not is_there(folder / TOKENIZER, follow=True):
        say(f"{folder}: has no {TOKENIZER}; tokens are written as numbers")
        return NumberTokenizer(vocabulary, vocabulary - 1)
    tokenizer, settings = read_tokenizer(folder, size=vocabulary), read_settings(folder, SETTINGS)
    names = {key: _name(settings.get(key)) for key in ("bos_token", "eos_token", "pad_token", "unk_token")}
    found = [*(each.get("eos_token_id") for each in ends), tokenizer.special_tokens.get(names["eos_token"])]
    numbers = [number for each in found for number in (each if isinstance(each, list) else [each])]
    return with_chat_template(tokenizer, _template(folder, settings), names=names, ends=numbers, say=say)


def _name(token: Any) -> str:
    """Return the name of a token, given as a string or as an object with its properties."""
    found = token.get("content") if isinstance(token, dict) else token
    return found if isinstance(found, str) else ""


def _template(folder: Path, settings: dict[str, Any]) -> Any:
    path = folder / TEMPLATE
    if is_there(path, follow=True):
        return read_plain(path, most=4 * LONGEST_TEMPLATE, follow=True).decode("utf-8", "replace")
    return named_template(settings.get("chat_template"))
