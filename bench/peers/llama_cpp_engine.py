"""SmolLM2 in llama.cpp, by xllamacpp: the same library as llama-cpp-python's, in wheels that need no compiler."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import xllamacpp  # pyright: ignore[reportMissingImports]

from tinygrad_chat.backend.host_threads import product_threads

MOST = 8  # sequences at a time
CONTEXT = 1024  # tokens of each


class LlamaCppEngine:
    """A GGUF file, F16 or Q8_0. It answers several requests at once, one sequence each, in one batch."""

    def __init__(self, folder: Path, kind: str) -> None:
        settings = xllamacpp.CommonParams()
        settings.model.path = str(folder / f"{kind}.gguf")
        settings.n_parallel, settings.n_ctx, settings.warmup = MOST, MOST * CONTEXT, False
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = product_threads()
        settings.verbosity = -1
        self._server = xllamacpp.Server(settings)

    def _complete(self, tokens: list[int], new: int) -> dict[str, Any]:
        request = {"prompt": tokens, "n_predict": new, "temperature": 0, "return_tokens": True, "n_probs": 1}
        return self._server.handle_completions({**request, "cache_prompt": False, "ignore_eos": True})

    def read(self, tokens: list[int]) -> float:
        """Return the seconds that it takes to read the tokens."""
        return self._complete(tokens, 1)["timings"]["prompt_ms"] / 1000

    def decode(self, prompts: list[list[int]], new: int) -> tuple[float, list[list[int]]]:
        """Return the seconds for `new` more tokens of each, without those for the prompts, and the tokens."""
        with ThreadPoolExecutor(MOST) as pool:
            answers = list(pool.map(lambda tokens: self._complete(tokens, new), prompts))
        found = [[each["id"] for each in answer["choices"][0]["logprobs"]["content"]] for answer in answers]
        return max(answer["timings"]["predicted_ms"] for answer in answers) / 1000, found

    def losses(self, tokens: list[int]) -> list[float] | None:
        """It tells none."""
        return None
