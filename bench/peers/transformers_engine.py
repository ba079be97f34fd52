"""SmolLM2 in transformers, as a user has it: a Hugging Face folder and a key/value cache that grows."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM


class TransformersEngine:
    """The model of a folder, in float32 or bfloat16."""

    def __init__(self, folder: Path, dtype: str) -> None:
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=getattr(torch, dtype)).eval()

    @torch.inference_mode()
    def read(self, tokens: list[int]) -> float:
        """Return the seconds that it takes to read the tokens."""
        began = time.perf_counter()
        self._model(torch.tensor([tokens]), use_cache=True, logits_to_keep=1)
        return time.perf_counter() - began

    @torch.inference_mode()
    def decode(self, prompts: list[list[int]], new: int) -> tuple[float, list[list[int]]]:
        """Return the seconds for `new` more tokens of each, without those for the prompts, and the tokens."""
        out = self._model(torch.tensor(prompts), use_cache=True, logits_to_keep=1)
        found = [out.logits[:, -1].argmax(-1)]
        began = time.perf_counter()
        for _ in range(new - 1):
            out = self._model(found[-1][:, None], past_key_values=out.past_key_values, use_cache=True)
            found.append(out.logits[:, -1].argmax(-1))
        return time.perf_counter() - began, torch.stack(found, dim=1).tolist()

    @torch.inference_mode()
    def losses(self, tokens: list[int]) -> list[float] | None:
        """Return the cross-entropy of each of the tokens but the first."""
        logits = self._model(torch.tensor([tokens[:-1]])).logits[0].float()
        return F.cross_entropy(logits, torch.tensor(tokens[1:]), reduction="none").tolist()
