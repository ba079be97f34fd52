"""One engine that generates, in a process of its own: greedily, with its key/value cache.

    python -m bench.decoder ENGINE SIZES WEIGHTS

Told {"prompt": tokens (B, T), "new": N} it answers with the N tokens that it adds and its seconds. Told {"prompt":
tokens (B, T), "forced": tokens (B, N)} it reads these instead of its own, and answers with the logits (B, N, V) before
each of them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from bench.configurations import Configuration
from bench.turns import OURS, PLAIN, serve
from bench.worker import Weights, describe_threads


class Decoder(Protocol):
    """A model that remembers what it has read. Its tokens and logits are arrays of its own library."""

    def begin(self) -> None:
        """Forget every token."""

    def tokens(self, array: np.ndarray) -> Any:
        """Return tokens as `read` takes them."""

    def read(self, tokens: Any) -> Any:
        """Logits (B, V) of the token after tokens (B, T)."""


class OurDecoder:
    """Our GPT of `configuration` with a cache for `configuration.batch` sequences. With `graph`, a device replays a
    token's step as a CUDA graph."""

    def __init__(
        self, configuration: Configuration, kernels: str = "auto", backend: str = "numpy", *, graph: bool = True
    ) -> None:
        from tinygrad_chat import GPT, Compute

        compute = Compute.choose(backend, kernels)
        self._model = GPT(configuration.vocabulary, configuration.options, compute=compute)
        self._model.captures_steps = graph
        self._cache = self._model.new_cache(configuration.batch)

    @property
    def why_eager(self) -> str | None:
        """Why no step has been captured, if that failed."""
        return None if self._cache.captured is None else self._cache.captured.refused

    def begin(self) -> None:
        """Forget every token."""
        self._cache.clear()

    def tokens(self, array: np.ndarray) -> np.ndarray:
        """Return the array itself."""
        return array

    def read(self, tokens: np.ndarray) -> np.ndarray:
        """Logits (B, V) of the token after tokens (B, T)."""
        return self._model.next_token_logits(tokens, self._cache)


def _torch(configuration: Configuration, weights: Weights, *, compiled: bool = False) -> Decoder:
    from bench.peers.torch_decoder import TorchDecoder

    return TorchDecoder(configuration, weights, compiled=compiled)


DECODERS: dict[str, Callable[[Configuration, Weights], Decoder]] = {
    OURS: lambda configuration, _: OurDecoder(configuration),
    PLAIN: lambda configuration, _: OurDecoder(configuration, "numpy"),
    "torch eager": _torch,
    "torch compile": lambda *given: _torch(*given, compiled=True),
}


def generate(decoder: Decoder, prompt: np.ndarray, count: int) -> np.ndarray:
    """Return the likeliest `count` tokens (B, count) after prompt (B, T)."""
    decoder.begin()
    tokens, new = decoder.tokens(prompt), []
    for _ in range(count):
        tokens = decoder.read(tokens).argmax(-1)[:, None]  # the same words in NumPy and PyTorch
        new.append(tokens)
    return np.concatenate([_to_host(token) for token in new], axis=1)


def _to_host(x: Any) -> np.ndarray:
    """Return an array of NumPy, CuPy or PyTorch as NumPy's, which has no bfloat16."""
    if hasattr(x, "is_floating_point") and x.is_floating_point():
        x = x.float()
    return x.get() if hasattr(x, "get") else np.asarray(x.cpu() if hasattr(x, "cpu") else x)


def logits_before(decoder: Decoder, prompt: np.ndarray, forced: np.ndarray) -> np.ndarray:
    """Return the logits (B, N, V) before each of the tokens forced (B, N) that follow prompt (B, T)."""
    decoder.begin()
    read = [prompt, *np.split(forced, forced.shape[1], axis=1)[:-1]]
    return np.stack([_to_host(decoder.read(decoder.tokens(tokens))) for tokens in read], axis=1)


def main(engine: str, sizes: str, weights: str) -> None:
    """Generate what stdin asks for."""
    decoder = DECODERS[engine](Configuration.parse(sizes), np.load(weights))

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        prompt = np.array(request["prompt"])
        if "forced" in request:
            return {"logits": logits_before(decoder, prompt, np.array(request["forced"])).tolist()}
        began = time.perf_counter()
        new = generate(decoder, prompt, request["new"])
        seconds = time.perf_counter() - began
        return {"tokens": new.tolist(), "seconds": seconds, "threads": describe_threads()}

    serve(answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
