"""Profiles: nothing of a step is missing from its rows, operations are the model's, traces open elsewhere."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.cuda_on_cpu.compiler import COMPILER
from tests.cuda_on_cpu.device import DEVICE, Device, standing_in
from tests.cuda_on_cpu.places import needs_compiler
from tests.training.test_loop import Start
from tinygrad_chat import GPT, ModelOptions, Tensor, ops
from tinygrad_chat.autograd import current_mode, watched_ops
from tinygrad_chat.backend import Backend, Compute, get_backend
from tinygrad_chat.machine import limits
from tinygrad_chat.machine.limits import Limits
from tinygrad_chat.models.size import flops_per_token
from tinygrad_chat.optim import AdamW
from tinygrad_chat.profiling import profile as module
from tinygrad_chat.profiling.costs import forward_cost
from tinygrad_chat.profiling.profile import OTHER, Profile, Row, WatchedStep, profile, profile_run
from tinygrad_chat.profiling.recorder import Recorder
from tinygrad_chat.profiling.trace import trace_events
from tinygrad_chat.training.graphs import CapturedStep
from tinygrad_chat.training.step import TrainStep

V, B, T = 11, 3, 8
OPTIONS = ModelOptions(layers=2, heads=2, width=16, context=T)
LIMITS = Limits(product_rate=1e9, bandwidth=1e9)


@pytest.fixture(autouse=True)
def known_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "measure_limits", lambda compute: LIMITS)


def take_profile(backend: Backend, steps: int = 2, *, graphs: bool = False, micro_batches: int = 1) -> Profile:
    compute = Compute.choose(backend)
    model = GPT(V, OPTIONS, compute=compute)
    tokens = np.random.default_rng(0).integers(0, V, (B, T + 1))
    draw = lambda: (tokens[:, :-1], tokens[:, 1:])  # noqa: E731
    settings: dict[str, Any] = {"clip": 1.0, "graphs": graphs, "grad_accumulation": micro_batches}
    step = WatchedStep(TrainStep(model, AdamW(model.parameters()), lambda step: 1e-3, **settings), draw)
    return profile(step, steps, compute=compute, tokens=B * T)


@pytest.fixture(params=["numpy", "device"])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    if request.param == "numpy":
        yield get_backend("numpy")
    elif COMPILER is None:
        pytest.skip("no C++ compiler to run kernels on the host with")
    else:
        with standing_in():
            yield DEVICE


@pytest.mark.profile("ci")
def test_rows_add_up_to_the_step_and_their_operations_are_the_models(backend: Backend):
    taken = take_profile(backend)
    assert sum(row.seconds for row in taken.rows) == pytest.approx(taken.step_seconds, rel=1e-6)
    assert sum(row.flops for row in taken.rows) == B * T * flops_per_token(OPTIONS, V)
    rows = {row.name: row for row in taken.rows}
    assert rows.keys() >= {
        "linear",
        "attention",
        "layernorm",
        "gelu",
        "cross_entropy",
        "embedding",
        "clip",
        "AdamW",
        OTHER,
    }
    on_device = backend.name != "numpy"  # where query, key and value are one
    assert rows["linear"].calls == (3 if on_device else 6) * OPTIONS.layers + 1
    assert not on_device or rows["linears"].calls == OPTIONS.layers
    assert min(rows["linear"].forward, rows["linear"].backward) > 0
    assert [row.seconds for row in taken.rows] == sorted((row.seconds for row in taken.rows), reverse=True)


def test_a_runs_profile_takes_steps_and_leaves_its_count_alone(start: Start):
    run = start("run", steps=5, dropout=0.1, grad_accumulation=2, batch_size=4)
    taken = profile_run(run, 1)
    assert "dropout" in {row.name for row in taken.rows}
    assert run.progress.step == 0


def test_what_follows_a_rule_until_the_next_belongs_to_it():
    recorder = Recorder(get_backend("numpy"))

    class Slow(Tensor):
        def accumulate(self, gradient):
            time.sleep(0.01)

    x = Slow(np.ones(3))
    with watched_ops(recorder.watch):
        out = ops.exp(x)
        out.backward(np.ones(3))
    recorder.close()
    forward, backward = recorder.spans
    assert (forward.name, forward.phase, backward.phase) == ("exp", "forward", "backward")
    assert backward.end - backward.begin >= 0.01
    assert backward.host_end - backward.host_begin >= 0.01


def test_costs_are_what_cannot_be_avoided():
    x, weight = np.ones((5, 8), np.float32), np.ones((3, 8), np.float32)
    assert forward_cost("linear", (x, weight), np.ones((5, 3), np.float32)) == (2 * 5 * 8 * 3, 4 * (40 + 24 + 15))
    wide, biases = np.ones((4, 8), np.float32), (np.ones(3, np.float32), np.ones(4, np.float32))
    outs = np.ones((5, 3), np.float32), np.ones((5, 4), np.float32)
    assert forward_cost("linears", (x, weight, wide, *biases), outs) == (2 * 5 * 8 * 7, 4 * (40 + 56 + 7 + 35))
    query, key = np.ones((2, 4, 6)), np.ones((2, 7, 6))
    assert forward_cost("attention", (query, key, key), query)[0] == 4 * 2 * 4 * 7 * 6
    table, tokens = np.ones((1000, 8), np.float32), np.zeros(5, np.int64)
    assert forward_cost("embedding", (table, tokens), table[tokens]) == (0, 2 * 4 * 40 + 40)
    assert forward_cost("exp", (x,), np.exp(x)) == (0, 4 * 80)
    assert forward_cost("reshape", (x,), x.reshape(8, 5)) == (0, 0)


@needs_compiler
@pytest.mark.parametrize("micro_batches", [1, B])
def test_captured_steps_are_timed_as_training_replays_them(micro_batches: int, monkeypatch: pytest.MonkeyPatch):
    watched: list[bool] = []
    take = CapturedStep.take

    def watched_take(self: CapturedStep, *given: Any) -> Any:
        watched.append(current_mode().watcher is not None)
        return take(self, *given)

    monkeypatch.setattr(CapturedStep, "take", watched_take)
    monkeypatch.setattr(Device, "memory_held", lambda self: 0)
    with standing_in(capturing=True):
        taken = take_profile(DEVICE, steps=2, graphs=True, micro_batches=micro_batches)
    assert taken.captured
    assert watched == [False] * (1 + 2 + 2)  # the last to warm up, those one after another and those apart
    assert {row.name for row in taken.rows} >= {"linear", "attention", "AdamW"}  # submitted op by op
    assert taken.device_seconds > 0
    assert (taken.host_seconds is None) == (micro_batches > 2)  # where it waits for a buffer that is still being read


def test_steps_that_are_not_captured_say_so_and_without_a_device_the_host_does_all(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Device, "memory_held", lambda self: 0)
    taken = take_profile(backend)
    assert not taken.captured
    assert taken.on_device == (backend.name != "numpy")
    if not taken.on_device:
        assert taken.host_seconds == taken.device_seconds == taken.plain_seconds


def test_the_limits_of_a_machine_are_measured(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits, "COPIED", 1 << 20)
    monkeypatch.setattr(limits, "SIDES", {"numpy": 64})
    found = limits.measure_limits(Compute.choose("numpy"))
    assert found.product_rate > 0
    assert found.bandwidth > 0
    assert 0 < found.call < 1e-3


def test_a_row_names_the_limit_that_binds_it():
    known = Limits(product_rate=1e9, bandwidth=1e9, call=1e-3)
    rows = {
        "products": Row("linear", 1, 0.1, 0.2, flops=2e8, bytes=1e6),
        "memory": Row("gelu", 1, 0.3, 0.4, bytes=3e8),
        "calls": Row("add", 8, 0.3, 0.4, bytes=3),
        "": Row(OTHER, 0, 0.1),
    }
    assert {row.bound(known): row for row in rows.values()} == rows
    assert [row.least_seconds(known) for row in rows.values()] == [0.2, 0.3, 16e-3, 0.0]
    assert Row("embedding", 8, 0.3).least_seconds(known) == 8e-3  # no rule has been called


def make_profile(**changes: Any) -> Profile:
    rows = [Row("linear", 1, 0.1, 0.2, flops=2e8, bytes=1e6), Row("gelu", 1, 0.3, 0.4, bytes=3e8)]
    settings = {"step_seconds": 1.0, "plain_seconds": 0.9, "host_seconds": 1.0, "on_device": False}
    paced = {"device_seconds": 0.9, "captured": False, "limits": LIMITS, **changes}
    return Profile(rows, tokens=8, spans=[], **{**settings, **paced})


def test_the_bottleneck_is_where_the_machines_limits_take_most_of_the_step():
    bottleneck = make_profile().bottleneck()
    assert bottleneck.startswith("no single limit; at the machine's limits, matrix products would take 20% ")
    assert "most is lost in gelu, 400.00 ms above its limit" in bottleneck
    assert make_profile(step_seconds=0.5).bottleneck().startswith("memory;")
    fast = make_profile(step_seconds=0.35)
    fast.rows[0].flops = 3e8
    fast.rows[1].bytes = 1e7
    assert fast.bottleneck().startswith("matrix products;")
    assert make_profile(on_device=True).bottleneck().startswith("the host, which launches kernels more slowly")


def test_the_bottleneck_of_small_ops_is_their_calls_unless_these_are_replayed():
    slow = {"limits": Limits(product_rate=1e9, bandwidth=1e9, call=0.2), "on_device": True}
    assert make_profile(**slow).bottleneck().startswith("calls: its ops are small; ")
    assert "other traffic of memory 30% and calls 80%; " in make_profile(**slow).bottleneck()
    captured = make_profile(**slow, captured=True, device_seconds=0.5, host_seconds=None).bottleneck()
    assert captured.startswith("memory; at the machine's limits, matrix products would take 40% of the step, other ")
    assert "calls" not in captured
    waiting = make_profile(**slow, captured=True, device_seconds=0.9, host_seconds=None).bottleneck()
    assert waiting.startswith("no single limit; ")


def test_a_trace_has_every_span_in_its_place(backend: Backend):
    spans = take_profile(backend, steps=1).spans
    events = [event for event in trace_events(spans, backend) if event["ph"] == "X"]
    assert len(events) == 2 * len(spans)
    for line in (0, 1):
        mine = [event for event in events if event["tid"] == line]
        assert mine[0]["ts"] == 0
        assert all(event["dur"] >= 0 for event in mine)
        assert all(one["ts"] + one["dur"] <= after["ts"] + 1 for one, after in itertools.pairwise(mine))
    assert {event["cat"] for event in events} == {"forward", "backward", "update"}


def test_a_step_that_overflows_is_measured_without_a_warning():
    model = GPT(V, OPTIONS)
    model.parameters().data[:] = 3e38
    tokens = np.zeros((B, T), np.int64)
    train_step = TrainStep(model, AdamW(model.parameters()), lambda step: 1e-3, clip=1.0)
    step = WatchedStep(train_step, lambda: (tokens, tokens))
    step(None)
    step(Recorder(get_backend("numpy")))
