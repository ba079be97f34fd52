"""Small models of each family with random weights, a tokenizer that splits as theirs, and a template of chats."""

from __future__ import annotations

import functools
import random
from pathlib import Path
from typing import Any

import numpy as np

from tests.text.writings import words
from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.models.options import ModelOptions
from tinygrad_chat.models.weights import draw_weights
from tinygrad_chat.runs.state import Progress, SavedModel
from tinygrad_chat.text.tokenizers import BPETokenizer
from tinygrad_chat.text.tokenizers.bpe_training import train_bpe
from tinygrad_chat.text.tokenizers.turns import Turns

SIZES: dict[str, Any] = {"layers": 2, "heads": 4, "width": 32, "feed_forward_width": 64, "context": 96}
ROTARY: dict[str, Any] = {
    **SIZES,
    "norm": "rmsnorm",
    "positions": "rotary",
    "activation": "swiglu",
    "key_value_heads": 2,
}
LLAMA3: dict[str, Any] = {
    **{"rotary_scaling": "llama3", "rotary_factor": 8.0, "rotary_original_context": 8192},
    "rotary_base": 5e5,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {**SIZES, "bias": True}),
    "gpt2 without biases": ("gpt2", SIZES),
    "llama": ("llama3", {**ROTARY, "tied": False}),
    "llama 3.1": ("llama3", {**ROTARY, **LLAMA3, "context": 16384}),
    "smollm2": ("smollm2", {**ROTARY, "norm_epsilon": 1e-6, "rotary_base": 1e5}),
    "qwen2": ("qwen2", {**ROTARY, "query_key_value_bias": True}),
    "qwen3": ("qwen2", {**ROTARY, "head_width": 12, "qk_norm": 1.0, "qk_gain": True}),
    "smollm3": ("llama3", {**ROTARY, "layers": 4, "no_rotary_every": 4}),
}
"""The pattern of the tokenizer and the options of models, by what they are like."""

CHATML_NAMES = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHATML = Turns(
    first="<|im_start|>user\n",
    system="<|im_start|>system\n",
    behind_system="<|im_end|>\n<|im_start|>user\n",
    answer="<|im_end|>\n<|im_start|>assistant\n",
    question="<|im_end|>\n<|im_start|>user\n",
    end="<|im_end|>\n",
    asked="<|im_end|>\n",
    prompt="<|im_start|>assistant\n",
)


@functools.cache
def learned(pattern: str) -> BPETokenizer:
    """A tokenizer that has learned a few hundred merges, with nanochat's special tokens."""
    source = random.Random(7)
    return train_bpe([[words(source, 5)] for _ in range(300)], 512, pattern=pattern)


@functools.cache
def with_chatml(pattern: str) -> BPETokenizer:
    """The same merges with the special tokens of ChatML."""
    merges = learned(pattern).merges
    tokenizer = BPETokenizer.from_merges(merges, special_tokens=("<|bos|>", *CHATML_NAMES), pattern=pattern)
    renamed = {name: number for name, number in tokenizer.special_tokens.items() if name != "<|bos|>"}
    tokens = [*tokenizer.tokens[:-4], *tokenizer.tokens[-3:]]
    special = {name: number - 1 for name, number in renamed.items()}
    made = BPETokenizer(tokens, merges, special_tokens=special, bos="<|endoftext|>", pattern=pattern)
    return made.for_chats(CHATML, ["<|im_end|>"])


def small_model(name: str, *, chatml: bool = False) -> SavedModel:
    """A model like one of FAMILIES, with random weights, gains and biases too, that is said to be able to chat."""
    pattern, chosen = FAMILIES[name]
    options = ModelOptions(**chosen)
    tokenizer = with_chatml(pattern) if chatml else learned(pattern)
    stream = np.random.default_rng(3)
    drawn = draw_weights(options, tokenizer.size, stream)
    weights = {key: array + stream.normal(0, 0.1, array.shape).astype(np.float32) for key, array in drawn.items()}
    config = TrainingConfig(model=options)
    return SavedModel(
        progress=Progress(), config=config, tokenizer=tokenizer, weights=weights, path=Path("model"), taught_to_chat=True
    )
