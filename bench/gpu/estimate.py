"""A training step, and a step of generation, on paper: every launch, product and copy of ours is counted, and the time
that they would take at given roofs. Nothing is computed, and nothing needs a GPU.

The step runs on tests/cuda_on_cpu's tracing device. A call takes as long as its operations at the roof of products or
its bytes at the roof of memory, whichever is longer, and calls follow one another: no real step is faster at these
roofs with these calls. What a call reads twice, or finds in a cache, is not known here.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.configurations import Configuration
from bench.gpu.models import (
    CONFIGURATIONS,
    D12,
    D12_SETTINGS,
    D12_VOCABULARY,
    make_nanochat_step,
    make_train_step,
    nanochat_config,
)
from tinygrad_chat.autograd import watched_ops
from tinygrad_chat.backend import Compute
from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.errors import BackendError
from tinygrad_chat.models.gpt import GPT
from tinygrad_chat.models.options import ModelOptions
from tinygrad_chat.models.parameter_table import by_name, parameter_table
from tinygrad_chat.nn import NextColumn
from tinygrad_chat.profiling.profile import WatchedStep
from tinygrad_chat.profiling.recorder import Recorder
from tinygrad_chat.training.step import TrainStep


@dataclass(frozen=True)
class Roofs:
    """What a device does at best: by default an H200 (others' measurements; of float32 NVIDIA's data sheet)."""

    tflops: float = field(default=790.0, metadata={"help": "TFLOP/s of products on tensor cores"})
    gbytes: float = field(default=4300.0, metadata={"help": "GB/s of memory"})
    float32_tflops: float = field(default=67.0, metadata={"help": "TFLOP/s of products that round no factors"})

    def seconds(self, nbytes: int, operations: int, *, in_float32: bool = False) -> float:
        """Return the least time of a call."""
        rate = self.float32_tflops if in_float32 else self.tflops
        return max(nbytes / (self.gbytes * 1e9), operations / (rate * 1e12))


COUNTED = ("GPT-2 124M", "S1", D12)
KNOWN = (*CONFIGURATIONS, D12)
PARTS = {
    "attention": ("attention",),
    "other products": ("linear", "linears", "matmul"),
    "norms": ("layernorm", "rmsnorm", "add_layernorm", "add_rmsnorm"),
    "cross-entropy": ("cross_entropy",),
    "embedding": ("embedding",),
    "optimiser": ("clip", "AdamW", "Muon"),
}
"""part of a step -> the ops and phases that it consists of, by the profiler's names"""
ELEMENTWISE = "all else within ops"
BETWEEN = "between ops"


@dataclass
class Part:
    """What a part of a step asks of the device; `seconds` at the roofs."""

    name: str
    calls: int = 0
    read: int = 0
    written: int = 0
    operations: int = 0
    seconds: float = 0.0

    def add(self, *, calls: int, read: int, written: int, operations: int, seconds: float) -> None:
        """Add what else is asked for."""
        self.calls, self.read, self.written = self.calls + calls, self.read + read, self.written + written
        self.operations, self.seconds = self.operations + operations, self.seconds + seconds


def estimate(name: str, roofs: Roofs) -> list[Part]:
    """Return the parts of a configuration's training step, longest first. Raises BackendError without a compiler."""
    if name != D12:
        configuration = CONFIGURATIONS[name]
        return count(maker_of(configuration), lambda: configuration.draw(0), roofs)
    config = _d12()

    def make(device: Any) -> TrainStep:
        return make_nanochat_step(config, *_on(device, config.model, D12_VOCABULARY))

    windows = np.zeros((D12_SETTINGS["batch_size"], D12_SETTINGS["context"] + 1), np.int64)
    return count(make, lambda: (windows[:, :-1], windows[:, 1:]), roofs)


def count(make: Callable[[Any], TrainStep], draw: Callable[[], Any], roofs: Roofs) -> list[Part]:
    """Return the parts of the training step that `make` returns for a device, longest first."""
    with _traced() as device:
        step = WatchedStep(make(device), draw)
        device.calls.clear()
        recorder = Recorder(device)
        step(recorder)
    return _parts(device, recorder, roofs)


def estimate_generation(name: str, roofs: Roofs) -> list[Part]:
    """Return the parts of the step that a device replays for one more token of one sequence, by a configuration's
    model, with a context that is just full; longest first."""
    if name == D12:
        options, vocabulary = _d12().model, D12_VOCABULARY
    else:
        options, vocabulary = CONFIGURATIONS[name].options, CONFIGURATIONS[name].vocabulary
    with _traced() as device:
        compute, weights = _on(device, options, vocabulary)
        on_host = {name: np.empty(x.shape, np.float32) for name, x in weights.items()}  # as a checkpoint's are
        model = GPT(vocabulary, options, compute=compute, weights=on_host)
        cache = model.new_cache(1)
        cache.make_room(options.context)
        tokens, end, starts = (device.xp.empty(shape, np.int64) for shape in ((1, 1), (), (1,)))
        column = NextColumn(cache.memory, end, starts)
        column.last_embedding = device.xp.empty((1, 1, options.width), compute.array_dtype)
        device.calls.clear()
        recorder = Recorder(device)
        with watched_ops(recorder.watch):
            model.next_token_logits(tokens, column)
    return _parts(device, recorder, roofs)


def _d12() -> TrainingConfig:
    return nanochat_config(D12_SETTINGS, D12_VOCABULARY)


def _traced() -> AbstractContextManager[Any]:
    """Provide the device that writes everything down. Raises BackendError without a compiler."""
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        raise BackendError("expected a C++ compiler, whose preprocessor reads the kernels' signatures, found none")
    from tests.cuda_on_cpu.tracing import traced

    return traced()


def _parts(device: Any, recorder: Recorder, roofs: Roofs) -> list[Part]:
    """Return what a device has written down, part by part, longest first."""
    parts: dict[str, Part] = {}

    def add(part: str, calls: Sequence[Any], operations: int = 0) -> None:
        whole = parts.setdefault(part, Part(part))
        alone = bool(calls) and not any(call.operations for call in calls)  # kernels that multiply by themselves
        for call in calls:
            counted = operations // len(calls) if alone else call.operations
            seconds = roofs.seconds(call.read + call.written, counted, in_float32=call.in_float32)
            whole.add(calls=1, read=call.read, written=call.written, operations=counted, seconds=seconds)

    seen = 0
    for span in recorder.spans:
        add(BETWEEN, device.calls[seen : span.begin])
        add(part_of(span.name), device.calls[span.begin : span.end], span.flops)
        seen = span.end
    add(BETWEEN, device.calls[seen:])
    return sorted(parts.values(), key=lambda part: -part.seconds)


def part_of(op: str) -> str:
    """Return the part of a step that an op, or a phase of the update, belongs to."""
    return next((part for part, ops in PARTS.items() if op in ops), ELEMENTWISE)


def maker_of(configuration: Configuration) -> Callable[[Any], TrainStep]:
    """Return what makes a configuration's training step for a device."""
    options, vocabulary = configuration.options, configuration.vocabulary
    return lambda device: make_train_step(configuration, *_on(device, options, vocabulary))


def _on(device: Any, options: ModelOptions, vocabulary: int) -> tuple[Compute, dict[str, Any]]:
    """Return how to compute on a device in bfloat16, and weights there that nobody has drawn."""
    compute = Compute.choose(device, dtype="bfloat16")
    named = by_name(parameter_table(options, vocabulary))
    return compute, {name: device.xp.empty(entry.shape, compute.array_dtype) for name, _, entry in named}


def tokens_of(name: str) -> int:
    """Return how many tokens a step of the configuration has."""
    return D12_SETTINGS["batch_size"] * D12_SETTINGS["context"] if name == D12 else CONFIGURATIONS[name].tokens


def tables_of(name: str, roofs: Roofs) -> str:
    """Return a configuration's training step and its step of generation as tables in Markdown."""
    training = table_of(f"{name}, {tokens_of(name):,} tokens", estimate(name, roofs))
    generation = table_of(f"{name}, one token of generation", estimate_generation(name, roofs))
    return "\n".join([*training, "", *generation])


def table_of(title: str, parts: Sequence[Part]) -> list[str]:
    """Return the parts of a step and their sum as a table in Markdown."""
    total = Part("**a step**")
    for part in parts:
        total.add(**{name: value for name, value in vars(part).items() if name != "name"})
    lines = [
        f"| {title} | calls | GB read | GB written | TFLOP | ms |",
        "|---|---|---|---|---|---|",
    ]
    for part in (*parts, total):
        gigabytes = f"{part.read / 1e9:.2f} | {part.written / 1e9:.2f}"
        lines.append(
            f"| {part.name} | {part.calls:,} | {gigabytes} | {part.operations / 1e12:.3f} | {1e3 * part.seconds:.2f} |"
        )
    return lines
