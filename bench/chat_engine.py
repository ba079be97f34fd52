"""One engine that runs SmolLM2-135M-Instruct, in a process of its own.

    python -m bench.chat_engine ENGINE FOLDER

FOLDER holds the model as `bench.interchange` wrote it. What stdin asks for:

    {"ask": "prompt", "tokens": [...]}                the seconds that it takes to read them
    {"ask": "decode", "prompts": [[...], ...], "new": N}    the seconds for N more tokens of each, and these
    {"ask": "losses", "tokens": [...]}                the cross-entropy of each but the first; None where it is not told
    {"ask": "memory"}                                 the most MiB that the process has held
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bench.turns import OURS, serve
from bench.worker import peak_mib


class ChatEngine(Protocol):
    """A model that reads and writes tokens, greedily."""

    def read(self, tokens: list[int]) -> float:
        """Return the seconds that it takes to read the tokens."""
        ...

    def decode(self, prompts: list[list[int]], new: int) -> tuple[float, list[list[int]]]:
        """Return the seconds for `new` more tokens of each, without those for the prompts, and the tokens."""
        ...

    def losses(self, tokens: list[int]) -> list[float] | None:
        """Return the cross-entropy of each of the tokens but the first."""
        ...


class OurEngine:
    """Ours, with weights stored as they are named."""

    def __init__(self, folder: Path, weights: str) -> None:
        import tinygrad_chat

        self._model: Any = tinygrad_chat.load(folder / "model", backend="numpy", weights=weights).model
        self._caches: dict[int, Any] = {}

    def _begin(self, rows: int) -> Any:
        if rows not in self._caches:
            self._caches[rows] = self._model.new_cache(rows)
        self._caches[rows].clear()
        return self._caches[rows]

    def read(self, tokens: list[int]) -> float:
        """Return the seconds that it takes to read the tokens."""
        cache, began = self._begin(1), time.perf_counter()
        self._model.next_token_logits(np.array([tokens]), cache)
        return time.perf_counter() - began

    def decode(self, prompts: list[list[int]], new: int) -> tuple[float, list[list[int]]]:
        """Return the seconds for `new` more tokens of each, without those for the prompts, and the tokens."""
        cache = self._begin(len(prompts))
        found = [self._model.next_token_logits(np.array(prompts), cache).argmax(-1)]
        began = time.perf_counter()
        for _ in range(new - 1):
            found.append(self._model.next_token_logits(found[-1][:, None], cache).argmax(-1))
        return time.perf_counter() - began, np.stack(found, axis=1).tolist()

    def losses(self, tokens: list[int]) -> list[float] | None:
        """Return the cross-entropy of each of the tokens but the first."""
        return self._model.token_losses(np.array([tokens[:-1]]), np.array([tokens[1:]]))[0].tolist()


def _transformers(folder: Path, dtype: str) -> ChatEngine:
    from bench.peers.transformers_engine import TransformersEngine

    return TransformersEngine(folder, dtype)


def _llama_cpp(folder: Path, kind: str) -> ChatEngine:
    from bench.peers.llama_cpp_engine import LlamaCppEngine

    return LlamaCppEngine(folder, kind)


CHAT_ENGINES: dict[str, Callable[[Path], ChatEngine]] = {
    f"{OURS} float32": lambda folder: OurEngine(folder, "float32"),
    f"{OURS} float16": lambda folder: OurEngine(folder, "float16"),
    f"{OURS} int8": lambda folder: OurEngine(folder, "int8"),
    "transformers float32": lambda folder: _transformers(folder, "float32"),
    "transformers bfloat16": lambda folder: _transformers(folder, "bfloat16"),
    "llama.cpp F16": lambda folder: _llama_cpp(folder, "F16"),
    "llama.cpp Q8_0": lambda folder: _llama_cpp(folder, "Q8_0"),
}


def main(name: str, folder: str) -> None:
    """Answer what stdin asks for."""
    engine = CHAT_ENGINES[name](Path(folder))

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        match request:
            case {"ask": "prompt", "tokens": tokens}:
                return {"seconds": engine.read(tokens)}
            case {"ask": "decode", "prompts": prompts, "new": new}:
                seconds, found = engine.decode(prompts, new)
                return {"seconds": seconds, "tokens": found}
            case {"ask": "losses", "tokens": tokens}:
                return {"losses": engine.losses(tokens)}
        return {"mib": peak_mib()}

    serve(answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
