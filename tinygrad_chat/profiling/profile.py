"""A profile of steps of a run: the time of each op, the work it did, and what the machine could have done."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygrad_chat.autograd import watched_ops
from tinygrad_chat.backend import Compute
from tinygrad_chat.machine.limits import Limits, measure_limits
from tinygrad_chat.profiling.recorder import Recorder, Span
from tinygrad_chat.seeds import rng
from tinygrad_chat.text.batches import Batch
from tinygrad_chat.training.build import build_train_step
from tinygrad_chat.training.run import Run
from tinygrad_chat.training.step import TrainStep

HALF, BUSY = 0.5, 0.95  # of a step's time
WARMING = 3  # warmup steps before anything is measured: kernels are compiled, memory is allocated
OTHER = "between ops"


@dataclass
class Row:
    """An op, or another part of a step: its calls, seconds, FLOPs and bytes per step."""

    name: str
    calls: float = 0.0
    forward: float = 0.0
    backward: float = 0.0
    flops: float = 0.0
    bytes: float = 0.0

    @property
    def seconds(self) -> float:
        """Seconds per step."""
        return self.forward + self.backward

    def least_seconds(self, limits: Limits) -> float:
        """The time at the machine's limits of its products or its memory traffic, whichever is longer."""
        return max(self.flops / limits.product_rate, self.bytes / limits.bandwidth)


@dataclass(frozen=True)
class Profile:
    """`rows`, slowest first, add up to `step_seconds` of a profiled step; unprofiled it takes `plain_seconds`.

    For `host_seconds` of those the host was busy: with a device, the time to launch its kernels. `spans` are those of
    the last step.
    """

    rows: list[Row]
    step_seconds: float
    plain_seconds: float
    host_seconds: float
    on_device: bool
    tokens: int
    limits: Limits
    spans: list[Span]

    def bottleneck(self) -> str:
        """Say which of the machine's limits bounds most of a step, and which op loses most time to its own limit."""
        limits, step = self.limits, self.step_seconds
        products = sum(row.flops for row in self.rows) / limits.product_rate
        memory = sum(row.bytes for row in self.rows if not row.flops) / limits.bandwidth
        worst = max(self.rows, key=lambda row: row.seconds - row.least_seconds(limits))
        lost = worst.seconds - worst.least_seconds(limits)
        if max(products, memory) >= HALF * step:
            held = "matrix products" if products >= memory else "memory"
        elif self.on_device and self.host_seconds >= BUSY * self.plain_seconds:
            held = "the host, which launches kernels more slowly than the device runs them"
        else:
            held = "no single limit"
        return (
            f"{held}; at the machine's limits, matrix products would take {products / step:.0%} of the step and other "
            f"traffic of memory {memory / step:.0%}; most is lost in {worst.name}, {1000 * lost:.2f} ms above its limit"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the profile without the spans, ready for JSON."""
        fields = {name: value for name, value in dataclasses.asdict(self).items() if name != "spans"}
        return {**fields, "bottleneck": self.bottleneck()}


Step = Callable[[Recorder | None], None]
"""Takes a training step; a recorder, if given, sees every op, and gets spans for the rest of the step."""


def profile(step: Step, steps: int, *, compute: Compute, tokens: int) -> Profile:
    """Take `steps` steps of `tokens` tokens, first unprofiled, then profiled; `compute` is their model's."""
    backend = compute.backend
    for _ in range(WARMING):
        step(None)
    backend.synchronize()
    began = time.perf_counter()
    for _ in range(steps):
        step(None)
    host = (time.perf_counter() - began) / steps
    backend.synchronize()
    plain = (time.perf_counter() - began) / steps
    rows: dict[str, Row] = {}
    seconds = 0.0
    recorder = Recorder(backend)
    for _ in range(steps):
        recorder = Recorder(backend)
        begin = backend.mark()
        step(recorder)
        end = backend.mark()
        backend.synchronize()
        rest = backend.seconds_between(begin, end)
        for span in recorder.spans:
            row = rows.setdefault(span.name, Row(span.name))
            length = backend.seconds_between(span.begin, span.end)
            if span.phase == "backward":
                row.backward += length / steps
            else:
                row.forward += length / steps
                row.calls += 1 / steps
            row.flops += span.flops / steps
            row.bytes += span.bytes / steps
            rest -= length
        rows.setdefault(OTHER, Row(OTHER)).forward += max(0.0, rest) / steps
        seconds += backend.seconds_between(begin, end) / steps
    ordered = sorted(rows.values(), key=lambda row: -row.seconds)
    on_device = backend.memory_held() is not None
    return Profile(ordered, seconds, plain, host, on_device, tokens, measure_limits(compute), recorder.spans)


def watched_step(
    train_step: TrainStep, draw: Callable[[], Batch], *, random: np.random.Generator | None = None
) -> Step:
    """Return a function that takes a training step on a batch from `draw`, without reading the loss."""
    optimizer = train_step.optimizer
    size = optimizer.parameters.gradient.nbytes

    @np.errstate(all="ignore")  # an overflow does not change the time
    def step(recorder: Recorder | None) -> None:
        batch = draw()
        if recorder is None:
            train_step(batch, 0, random=random)
            return
        with watched_ops(recorder.watch):
            loss = train_step.gradient(batch, random=random)
        with recorder.span("clip", nbytes=size):
            _, scale = train_step.measure_gradient()
        with recorder.span(type(optimizer).__name__, nbytes=7 * size):  # reads four such arrays, writes three
            train_step.update(loss, scale, 0)

    return step


def profile_run(run: Run, steps: int) -> Profile:
    """Profile steps of a run, each on another batch; the weights change, the run's step number does not."""
    config, drawn = run.config, itertools.count()

    step = watched_step(
        build_train_step(config, run.model),  # one graph, without data-parallel threads: products use all threads
        lambda: run.batch(next(drawn)),
        random=rng(config.run.seed, "dropout", 0) if config.model.dropout else None,
    )
    return profile(step, steps, compute=run.model.parameters().compute, tokens=config.tokens_per_step)
