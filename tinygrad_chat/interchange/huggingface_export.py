"""Export a model as a Hugging Face folder, for transformers, vLLM and others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tinygrad_chat.files import write_folder_atomic
from tinygrad_chat.interchange.exporting import end_tokens, exported_tokenizer, exported_turns
from tinygrad_chat.interchange.families import family_for
from tinygrad_chat.interchange.family import Family
from tinygrad_chat.interchange.gguf_blocks import packed
from tinygrad_chat.interchange.huggingface_files import CONFIG, GENERATION, TEMPLATE, WEIGHTS
from tinygrad_chat.interchange.sampling import huggingface_sampling
from tinygrad_chat.runs.state import SavedModel
from tinygrad_chat.text.conversations.jinja import chat_template
from tinygrad_chat.text.tokenizers import BPETokenizer
from tinygrad_chat.text.tokenizers.files import SETTINGS, TOKENIZER
from tinygrad_chat.text.tokenizers.huggingface import to_huggingface

ALIGNMENT = 8  # bytes, of the data in a safetensors file
NAME_OF = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def expect_huggingface(saved: SavedModel) -> tuple[Family, BPETokenizer]:
    """Return the family that a model belongs to, and its tokenizer. Raises UsageError if it cannot be exported."""
    tokenizer = exported_tokenizer(saved)
    return family_for(saved.config.model, tokenizer.size), tokenizer


def export_huggingface(saved: SavedModel, folder: Path, kind: str = "F32") -> int:
    """Write a model as a folder, its weights stored as F32, F16 or BF16; return the number of arrays.

    Raises UsageError if no family has its options, or if other programs do not know its kind of tokenizer.
    """
    options, turns = saved.config.model, exported_turns(saved)
    family, tokenizer = expect_huggingface(saved)
    arrays = family.weights_to(saved.weights, options, tokenizer.size)
    names, ends = {number: name for name, number in tokenizer.special_tokens.items()}, end_tokens(saved, tokenizer)
    shared = {
        "bos_token_id": tokenizer.bos,
        "eos_token_id": ends if len(ends) > 1 else ends[0],
        "pad_token_id": ends[0],
    }
    config = {**family.config_of(options, tokenizer.size), **shared, "dtype": NAME_OF[kind]}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": tokenizer.bos_name,
        "eos_token": names[ends[0]],
        "pad_token": names[ends[0]],
        "model_max_length": options.context,
        "clean_up_tokenization_spaces": False,
    }
    write_folder_atomic(
        folder,
        {
            CONFIG: _json(config),
            GENERATION: _json({**shared, **huggingface_sampling(saved.sampling)}),
            WEIGHTS: _safetensors(arrays, kind),
            TOKENIZER: to_huggingface(tokenizer),
            SETTINGS: _json(settings),
            **({TEMPLATE: chat_template(turns).encode()} if turns else {}),
        },
    )
    return len(arrays)


def _safetensors(arrays: Mapping[str, Any], kind: str) -> bytes:
    """Return the content of a safetensors file. NumPy lacks bfloat16, so the safetensors library cannot write it."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    contents, begin = [], 0
    for name, array in arrays.items():
        contents.append(packed(np.asarray(array), kind))
        end = begin + len(contents[-1])
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [begin, end]}
        begin = end
    stated = json.dumps(header).encode()
    stated += b" " * (-len(stated) % ALIGNMENT)
    return b"".join([len(stated).to_bytes(8, "little"), stated, *contents])


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=1).encode()
