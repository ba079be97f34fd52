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
from tinygrad_chat.backend import BUFFERS, Backend, Compute
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
PRODUCTS, MEMORY, CALLS = "products", "memory", "calls"  # the limits of a machine


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

    @property
    def all_calls(self) -> float:
        """Calls per step, of the op and of its backward rule: at least as many kernels run."""
        return self.calls * (2 if self.backward else 1)

    def at_limits(self, limits: Limits) -> dict[str, float]:
        """Return the seconds that the machine needs at least, by the limit: of products, of memory, of calls."""
        return {
            PRODUCTS: self.flops / limits.product_rate,
            MEMORY: self.bytes / limits.bandwidth,
            CALLS: self.all_calls * limits.call,
        }

    def least_seconds(self, limits: Limits) -> float:
        """The time at the limit that binds."""
        return max(self.at_limits(limits).values())

    def bound(self, limits: Limits) -> str:
        """Return which limit binds, an empty text if nothing is known of the row."""
        seconds = self.at_limits(limits)
        return max(seconds, key=seconds.__getitem__) if any(seconds.values()) else ""


@dataclass(frozen=True)
class Pace:
    """How long unwatched steps take, in seconds: `step`, one after another, as in training.

    `host` is the time in which the host submits a step to an idle device, `device` that from the beginning of its work
    on the device to the end. Without a device all three are the same. `captured` tells whether the steps are
    replays of CUDA graphs; with more than two micro-batches, the host then waits for the device between them, and its
    own time is not known.
    """

    step: float
    host: float | None
    device: float
    captured: bool = False


@dataclass(frozen=True)
class Profile:
    """`rows`, slowest first, add up to `step_seconds` of a profiled step, which is submitted op by op; unprofiled, it
    takes `plain_seconds`, of which see `Pace`. `spans` are those of the last step.
    """

    rows: list[Row]
    step_seconds: float
    plain_seconds: float
    host_seconds: float | None
    device_seconds: float
    captured: bool
    on_device: bool
    tokens: int
    limits: Limits
    spans: list[Span]

    def bottleneck(self) -> str:
        """Say which of the machine's limits bounds most of a step, and which op loses most time to its own limit."""
        limits, step = self.limits, self.device_seconds if self.captured else self.step_seconds
        products = sum(row.flops for row in self.rows) / limits.product_rate
        memory = sum(row.bytes for row in self.rows if not row.flops) / limits.bandwidth
        calls = 0.0 if self.captured else sum(row.all_calls for row in self.rows) * limits.call
        worst = max(self.rows, key=lambda row: row.seconds - row.least_seconds(limits))
        lost = worst.seconds - worst.least_seconds(limits)
        if max(products, memory, calls) >= HALF * step:
            held = max((products, "matrix products"), (memory, "memory"), (calls, "calls: its ops are small"))[1]
        elif self.on_device and (self.host_seconds or 0.0) >= BUSY * self.plain_seconds:
            held = "the host, which launches kernels more slowly than the device runs them"
        else:
            held = "no single limit"
        return (
            f"{held}; at the machine's limits, matrix products would take {products / step:.0%} of the step, other "
            f"traffic of memory {memory / step:.0%}"
            + ("" if self.captured else f" and calls {calls / step:.0%}")
            + f"; most is lost in {worst.name}, {1000 * lost:.2f} ms above its limit"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the profile without the spans, ready for JSON."""
        fields = {name: value for name, value in dataclasses.asdict(self).items() if name != "spans"}
        known = [{"bound": row.bound(self.limits), "least": row.least_seconds(self.limits)} for row in self.rows]
        rows = [{**row, **more} for row, more in zip(fields["rows"], known, strict=True)]
        return {**fields, "rows": rows, "bottleneck": self.bottleneck()}


class WatchedStep:
    """Takes training steps, each on a batch from `draw`, without reading the loss.

    Given a recorder, it submits the step op by op; the recorder sees every op, and gets spans for the rest of the step.
    """

    def __init__(
        self, train_step: TrainStep, draw: Callable[[], Batch], *, random: np.random.Generator | None = None
    ) -> None:
        self.train_step, self._draw, self._random = train_step, draw, random

    @np.errstate(all="ignore")  # an overflow does not change the time
    def __call__(self, recorder: Recorder | None) -> None:
        """Take a step."""
        batch, train_step = self._draw(), self.train_step
        if recorder is None:
            train_step(batch, 0, random=self._random)
            return
        size = train_step.optimizer.parameters.gradient.nbytes
        with watched_ops(recorder.watch):
            loss = train_step.gradient(batch, random=self._random)
        with recorder.span("clip", nbytes=size):
            _, scale = train_step.measure_gradient()
        moved = 7 * size  # four such arrays are read, three written
        with recorder.span(type(train_step.optimizer).__name__, nbytes=moved):
            train_step.update(loss, scale, 0)


def measure_pace(step: WatchedStep, steps: int, backend: Backend) -> Pace:
    """Take steps that nobody watches: some to warm up, `steps` one after another and, on a device, as many apart."""
    for _ in range(WARMING):
        step(None)
    backend.synchronize()
    began = time.perf_counter()
    for _ in range(steps):
        step(None)
    backend.synchronize()
    plain = (time.perf_counter() - began) / steps
    if backend.memory_held() is None:
        return Pace(plain, plain, plain)
    host = device = 0.0
    for _ in range(steps):
        begin, began = backend.mark(), time.perf_counter()
        step(None)
        host += (time.perf_counter() - began) / steps
        end = backend.mark()
        backend.synchronize()
        device += backend.seconds_between(begin, end) / steps
    captured = step.train_step.captured
    waits = captured and step.train_step.grad_accumulation > BUFFERS
    return Pace(plain, None if waits else host, device, captured)


def profile(step: WatchedStep, steps: int, *, compute: Compute, tokens: int) -> Profile:
    """Take `steps` steps of `tokens` tokens, first unprofiled, then profiled; `compute` is their model's."""
    backend = compute.backend
    pace = measure_pace(step, steps, backend)
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
    return Profile(
        ordered,
        seconds,
        pace.step,
        pace.host,
        pace.device,
        pace.captured,
        backend.memory_held() is not None,
        tokens,
        measure_limits(compute),
        recorder.spans,
    )


def profile_run(run: Run, steps: int) -> Profile:
    """Profile steps of a run, each on another batch; the weights change, the run's step number does not."""
    config, drawn = run.config, itertools.count()

    step = WatchedStep(
        build_train_step(config, run.model),  # one graph, without data-parallel threads: products use all threads
        lambda: run.batch(next(drawn)),
        random=rng(config.run.seed, "dropout", 0) if config.model.dropout else None,
    )
    return profile(step, steps, compute=run.model.parameters().compute, tokens=config.tokens_per_step)
