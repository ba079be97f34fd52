"""One engine on a GPU, in a process of its own.

    python -m bench.gpu.worker ENGINE DEVICE

Answers requests for losses and which attention it runs, for seconds a step and the memory they take, for generation.
DEVICE is cuda, or cpu to try the measurement without a GPU.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from bench import turns
from bench.configurations import Configuration
from bench.decoder import Decoder, OurDecoder, generate, logits_before
from bench.gpu.models import make_train_step
from bench.turns import OURS, serve


class OurEngine:
    """tinygrad_chat with CuPy, in its fastest precision."""

    def __init__(self, device: str) -> None:
        from tinygrad_chat.backend import Compute

        self._compute = Compute.choose("cupy" if device == "cuda" else "numpy")
        self._backend = self._compute.backend

    def make_step(self, configuration: Configuration, weights: Any) -> Callable[[Any, Any], Any]:
        """Return a training step on tokens and targets -> loss, not waited for."""
        train_step = make_train_step(configuration, self._compute)
        return lambda tokens, targets: train_step((tokens, targets), 0).loss

    def decoder(self, configuration: Configuration, weights: Any, *, graph: bool) -> Decoder:
        """Return the model with a cache."""
        return OurDecoder(configuration, backend=self._backend.name, graph=graph)

    def attention(self, configuration: Configuration) -> str:
        """Which attention a training step runs."""
        return "its own"

    def synchronize(self) -> None:
        """Wait for the device."""
        self._backend.synchronize()

    def memory(self) -> int:
        """Bytes that the device's pool has claimed so far."""
        return self._backend.memory_held() or 0

    def free(self) -> None:
        """Give back what is unused."""
        if self._backend.name == "cupy":
            self._backend.xp.get_default_memory_pool().free_all_blocks()


class TorchEngine:
    """PyTorch in bfloat16 by autocast, with fused attention and AdamW."""

    def __init__(self, device: str, *, compiled: bool = False) -> None:
        import torch

        self._device, self._compiled, self._torch = device, compiled, torch
        torch.set_float32_matmul_precision("high")

    def make_step(self, configuration: Configuration, weights: Any) -> Callable[[Any, Any], Any]:
        """Return a training step on tokens and targets -> loss, not waited for."""
        from bench.peers.torch_gpt import training_step

        if self._compiled:
            self._torch.compiler.reset()  # or the next shape would make shapes dynamic, which is slower
        bfloat16 = self._device == "cuda"  # a trial on the CPU compares float32 with float32
        return training_step(configuration, weights, compiled=self._compiled, bfloat16=bfloat16, device=self._device)

    def decoder(self, configuration: Configuration, weights: Any, *, graph: bool) -> Decoder:
        """Return the model with a cache."""
        from bench.peers.torch_decoder import TorchDecoder

        dtype = self._torch.bfloat16 if self._device == "cuda" else self._torch.float32
        return TorchDecoder(configuration, weights, compiled=self._compiled, device=self._device, dtype=dtype)

    def attention(self, configuration: Configuration) -> str:
        """Which attention a training step runs."""
        from bench.peers.torch_attention import chosen_attention

        options = configuration.options
        sizes: dict[str, Any] = {
            "heads": options.heads,
            "context": options.context,
            "head_width": options.width // options.heads,
        }
        dtype = self._torch.bfloat16 if self._device == "cuda" else self._torch.float32
        return f"PyTorch's {chosen_attention(self._device, dtype, **sizes)}"

    def synchronize(self) -> None:
        """Wait for the device."""
        if self._device == "cuda":
            self._torch.cuda.synchronize()

    def memory(self) -> int:
        """Bytes that the device's pool has claimed at most."""
        return self._torch.cuda.max_memory_reserved() if self._device == "cuda" else 0

    def free(self) -> None:
        """Give back what is unused."""
        if self._device == "cuda":
            self._torch.cuda.empty_cache()
            self._torch.cuda.reset_peak_memory_stats()


ENGINES: dict[str, Callable[[str], Any]] = {
    OURS: OurEngine,
    "torch eager": TorchEngine,
    "torch compile": lambda device: TorchEngine(device, compiled=True),
}


def main(name: str, device: str) -> None:
    """Answer what stdin asks for."""
    engine = ENGINES[name](device)
    # The configuration in hand, so that no two fill the memory.
    steps: dict[str, Callable[[Any, Any], Any]] = {}
    decoders: dict[tuple[str, bool], Decoder] = {}

    def step_of(request: dict[str, Any]) -> tuple[Configuration, Callable[[Any, Any], Any]]:
        configuration = Configuration.parse(request["sizes"])
        if request["sizes"] not in steps:
            steps.clear()
            engine.free()
            steps[request["sizes"]] = engine.make_step(configuration, np.load(request["weights"]))
        return configuration, steps[request["sizes"]]

    def losses(request: dict[str, Any]) -> dict[str, Any]:
        configuration, step = step_of(request)
        found = [float(step(*configuration.draw(number))) for number in range(request["steps"])]
        return {"losses": found, "attention": engine.attention(configuration)}

    def seconds(request: dict[str, Any]) -> dict[str, Any]:
        configuration, step = step_of(request)
        batch = configuration.draw(0)
        engine.synchronize()
        began = time.perf_counter()
        for _ in range(request["steps"]):
            step(*batch)
        engine.synchronize()
        return {"seconds": (time.perf_counter() - began) / request["steps"], "memory": engine.memory()}

    def decoder_of(request: dict[str, Any]) -> tuple[Decoder, np.ndarray]:
        """Return a decoder, and the tokens of a prompt and those after it."""
        configuration, key = Configuration.parse(request["sizes"]), (request["sizes"], request["graph"])
        if any(sizes != request["sizes"] for sizes, _ in decoders):
            decoders.clear()
            engine.free()
        if key not in decoders:
            weights = np.load(request["weights"])
            decoders[key] = engine.decoder(configuration, weights, graph=request["graph"])
        return decoders[key], configuration.draw(0)[0]

    def forced(request: dict[str, Any]) -> dict[str, Any]:
        (decoder, tokens), (begin, end) = decoder_of(request), (request["prompt"], request["prompt"] + request["new"])
        logits = logits_before(decoder, tokens[:, :begin], tokens[:, begin:end]).astype(np.float64)
        largest = logits.max(axis=-1, keepdims=True)
        given = np.take_along_axis(logits - largest, tokens[:, begin:end, None], axis=-1)[..., 0]
        losses = np.log(np.exp(logits - largest).sum(axis=-1)) - given
        return {"losses": losses.mean(axis=0).tolist()}

    def decode(request: dict[str, Any]) -> dict[str, Any]:
        decoder, tokens = decoder_of(request)
        engine.synchronize()
        began = time.perf_counter()
        generate(decoder, tokens[:, : request["prompt"]], request["new"])
        engine.synchronize()
        seconds = time.perf_counter() - began
        if why := getattr(decoder, "why_eager", None):
            raise turns.BenchmarkError(f"no step of generation was captured: {why}")
        return {"seconds": seconds}

    answers: dict[str, Callable[[dict[str, Any]], Any]] = {
        "losses": losses,
        "seconds": seconds,
        "forced": forced,
        "decode": decode,
    }

    def rest(request: dict[str, Any]) -> dict[str, Any]:
        steps.clear()
        decoders.clear()
        gc.collect()
        engine.free()
        return {}

    answers["rest"] = rest

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        try:
            return answers[request["what"]](request)
        except Exception as error:
            if not isinstance(error, MemoryError) and type(error).__name__ != "OutOfMemoryError":
                raise
        rest({})  # only here has the traceback let go of the arrays
        return {"out_of_memory": True}

    serve(answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
