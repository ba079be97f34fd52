"""Bits per byte of models with different tokenizers, each trained for the same minutes and evaluated on the same text.

Runs of `tgc train` in turns, each a process of its own, so that all share the machine's moods. What counts is the
checkpoint with the best validation loss, on all of the held-out text.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import turns
from tinygrad_chat.runs.checkpoint import checkpoint_path

RECIPES = {"default": (), "nanochat": ("--model", "nanochat")}
TOKENIZERS = {"characters": ("--tokenizer", "characters"), "bpe": ("--tokenizer", "bpe")}


def measure_quality(minutes: float, *, recipe: str, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Return a row for each seed and tokenizer, in turns."""
    rows = []
    for seed in seeds:
        for tokenizer in TOKENIZERS:
            found = _train_and_evaluate([*RECIPES[recipe], *TOKENIZERS[tokenizer]], minutes, seed)
            rows.append({"recipe": recipe, "tokenizer": tokenizer, "seed": seed, "minutes": minutes, **found})
            turns.progress(f"{recipe:9} {tokenizer:10} seed {seed}: {found['bits_per_byte']:.4f} bits/byte")
    return rows


def _train_and_evaluate(settings: Sequence[str], minutes: float, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        out = ["--out", f"{folder}/run"]
        trained = turns.tgc("train", "--json", "--minutes", f"{minutes:g}", "--seed", f"{seed}", *settings, *out)
        best = checkpoint_path(Path(folder, "run", "checkpoints"), trained["best_step"])
        [found] = turns.tgc("eval", "--json", str(best))["evaluations"]
    kept = {name: found[name] for name in ("bits_per_byte", "loss", "bytes", "bytes_per_token")}
    return {**kept, **{name: trained[name] for name in ("step", "best_step", "parameters")}}
