"""Steps of one token, captured as CUDA graphs, leave the bits of eager ones, whoever joins or leaves in between.

The device is tests/cuda_on_cpu's, which keeps each call with its addresses and computes nothing while it captures.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

from tests.cuda_on_cpu import tape
from tests.cuda_on_cpu.device import DEVICE, no_waiting, standing_in
from tests.cuda_on_cpu.places import needs_compiler, open_place
from tests.profiles import CI
from tests.training.test_loop import Start, finish
from tinygrad_chat import GPT, Compute, ModelOptions
from tinygrad_chat.autograd import reference_ops, watched_ops
from tinygrad_chat.backend import EAGER_STEPS, Backend, Packet, get_backend
from tinygrad_chat.errors import ShapeError
from tinygrad_chat.inference.load import load_model
from tinygrad_chat.inference.rows import SharedRows, rows_of
from tinygrad_chat.kernels.cuda import linear
from tinygrad_chat.models.nanochat import NANOCHAT
from tinygrad_chat.models.parameter_table import by_name, parameter_table
from tinygrad_chat.nn import KeyValueCache
from tinygrad_chat.nn import cache as cache_module
from tinygrad_chat.runs.lookup import open_checkpoint
from tinygrad_chat.runs.state import SavedModel

pytestmark = needs_compiler
V, CONTEXT, MAX_ROWS = 19, 24, 4
SMALL: dict[str, Any] = {"layers": 2, "heads": 2, "width": 16, "context": CONTEXT}
DOCUMENTS = {"document_mask": True, "document_token": 0}
VARIANTS: dict[str, dict[str, Any]] = {
    "GPT-2's": {"bias": True},
    "a modern one's": {
        "positions": "rotary",
        "norm": "rmsnorm",
        "activation": "swiglu",
        "key_value_heads": 1,
        "window": 5,
        "soft_cap": 15.0,
    },
    "within documents": DOCUMENTS,
    "with adapters": {"lora": 2, "positions": "rotary"},
    "nanochat's": {**NANOCHAT, "vocabulary_multiple": 8, "window": 5},
    "nanochat's within documents": {**NANOCHAT, **DOCUMENTS, "vocabulary_multiple": 8},
}


@pytest.fixture(autouse=True)
def device(request: pytest.FixtureRequest) -> Iterator[None]:
    on_gpu = request.node.get_closest_marker("gpu") is not None
    with nullcontext() if on_gpu else standing_in(capturing=True):
        yield


def build(variant: dict[str, Any], *, capturing: bool = True, dtype: str = "float32", backend: Backend = DEVICE) -> GPT:
    model = GPT(V, ModelOptions(**{**SMALL, **variant}), compute=Compute.choose(backend, dtype=dtype))
    random = np.random.default_rng(0)
    model.parameters().load({name: random.normal(size=x.shape) / 3 for name, x in model.parameters().state().items()})
    model.captures_steps = capturing
    return model


def replays(monkeypatch: pytest.MonkeyPatch) -> list[tape.Tape]:
    """Return a list that gets an entry for each replay."""
    found: list[tape.Tape] = []
    replay = tape.Tape.replay
    monkeypatch.setattr(tape.Tape, "replay", lambda self: (found.append(self), replay(self))[1])
    return found


def shared_rows(model: GPT, prefix_bytes: int = 0) -> SharedRows:
    rows = rows_of(model, MAX_ROWS, cached=True, prefix_bytes=prefix_bytes)
    assert isinstance(rows, SharedRows)
    return rows


def read_in_company(model: GPT) -> list[np.ndarray]:
    """Return the logits of every step of rows that join, leave and fill the cache."""
    rows, random, found = shared_rows(model), np.random.default_rng(1), []

    def step(times: int) -> None:
        for _ in range(times):
            with no_waiting():
                found.append(rows.step(random.integers(0, V, rows._cache.rows).tolist()))

    rows.join([[1, 2, 3], [4, 0, 5, 6, 7]])
    step(5)
    rows.join([[8]])
    step(4)
    rows.leave(0)  # the newest takes its place
    step(4)
    rows.join([random.integers(0, V, 12).tolist()])
    step(5)
    rows.leave(1)  # the longest, while the end of the cache is near
    step(6)
    rows.clear()
    rows.join([[3, 1]])
    step(4)
    captured = rows._cache.captured
    assert captured is None or (len(captured) > 0 and captured.refused is None)
    return [model.compute.backend.to_host(logits).copy() for logits in found]


@CI
@pytest.mark.parametrize(
    ("dtype", "columns"), [("float32", 4), ("float32", cache_module.FIRST_COLUMNS), ("tf32", 4), ("bfloat16", 4)]
)
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_captured_steps_leave_the_bits_of_eager_ones(
    variant: dict[str, Any], dtype: str, columns: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cache_module, "FIRST_COLUMNS", columns)  # few: graphs end when the cache grows
    replayed = replays(monkeypatch)
    eager = read_in_company(build(variant, dtype=dtype, capturing=False))
    assert not replayed
    captured = read_in_company(build(variant, dtype=dtype))
    assert len(replayed) >= len(eager) // 2
    for ours, theirs in zip(captured, eager, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    if dtype == "float32":
        on_host = read_in_company(build(variant, backend=get_backend("numpy")))
        for ours, theirs in zip(captured, on_host, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def read(model: GPT, cache: KeyValueCache, tokens: Any) -> np.ndarray:
    return model.compute.backend.to_host(model.next_token_logits(np.array(tokens), cache)).copy()


def ready(model: GPT, rows: int = 1) -> KeyValueCache:
    """Return a cache whose next step is replayed."""
    cache = model.new_cache(rows)
    for tokens in ([[1, 2]] * rows, *[[[3]] * rows] * (EAGER_STEPS + 1)):
        read(model, cache, tokens)
    return cache


def test_a_token_takes_one_packet_and_one_launch(monkeypatch: pytest.MonkeyPatch):
    model = build({})
    cache, replayed, sent = ready(model), replays(monkeypatch), []
    monkeypatch.setattr(Packet, "send", lambda self, send=Packet.send: (sent.append(self), send(self))[1])
    for _ in range(3):
        read(model, cache, [[5]])
    assert len(replayed) == len(sent) == 3
    assert len(replayed[0].calls) > 20  # which are not made one by one


@pytest.mark.parametrize("kind", [np.array, DEVICE.xp.array, list])
def test_tokens_are_read_from_wherever_they_are(kind: Any, monkeypatch: pytest.MonkeyPatch):
    found = []
    for capturing in (False, True):
        model = build({}, capturing=capturing)
        cache, tokens, replayed = ready(model), kind([[5]]), replays(monkeypatch)
        for _ in range(3):
            logits = model.next_token_logits(tokens, cache)
            drawn = logits.argmax(axis=-1)[:, None]
            found.append(DEVICE.to_host(drawn).item())
            tokens = drawn if kind == DEVICE.xp.array else kind([[found[-1]]])
        assert len(replayed) == 3 * capturing
    assert found[:3] == found[3:]
    assert len(set(found)) > 1


def test_a_token_that_the_device_has_drawn_is_read_without_waiting():
    model = build({})
    cache, tokens = ready(model), DEVICE.xp.array([[5]])
    with no_waiting():
        for _ in range(3):
            tokens = model.next_token_logits(tokens, cache).argmax(axis=-1)[:, None]


def test_a_result_is_not_overwritten_by_the_next_step():
    model = build({})
    cache = ready(model)
    first = model.next_token_logits(np.array([[5]]), cache)
    before = DEVICE.to_host(first).copy()
    read(model, cache, [[6]])
    np.testing.assert_array_equal(DEVICE.to_host(first), before)


@pytest.mark.parametrize("moved", [False, True])
def test_weights_that_have_changed_are_read_where_they_are(moved: bool):
    eager, moving = build({}, capturing=False), build({})
    caches = ready(eager), ready(moving)
    for model in (eager, moving):
        values = {name: x / 2 for name, x in model.parameters().state().items()}
        if moved:
            model._parameters = None  # as in a model whose parameters nobody has asked for yet
        model.parameters().load(values)
    for tokens in [[[5]], [[6]]] * (EAGER_STEPS + 1):
        ours, theirs = (read(model, cache, tokens) for model, cache in zip((moving, eager), caches, strict=True))
        np.testing.assert_array_equal(ours, theirs)


def test_a_full_context_is_refused_as_by_an_eager_step():
    model = build({})
    cache = ready(model)
    while cache.length < CONTEXT:
        read(model, cache, [[5]])
    with pytest.raises(ShapeError, match=f"expected at most {CONTEXT} tokens"):
        read(model, cache, [[5]])


def test_what_cannot_be_captured_stays_eager_and_says_why(monkeypatch: pytest.MonkeyPatch):
    def refuse(self: Any, work: Any) -> Any:
        raise MemoryError("no memory\nfor a graph")

    monkeypatch.setattr(tape.TapeCapture, "capture", refuse)
    eager, model = build({}, capturing=False), build({})
    caches = eager.new_cache(1), model.new_cache(1)
    for tokens in ([[1, 2]], *[[[3]]] * (EAGER_STEPS + 3)):
        np.testing.assert_array_equal(read(model, caches[1], tokens), read(eager, caches[0], tokens))
    assert caches[1].captured.refused == "no memory for a graph"


def test_a_refusal_lets_go_of_what_was_captured_before(monkeypatch: pytest.MonkeyPatch):
    rows = shared_rows(build({}))
    for captured in (1, 0):
        rows.join([[1, 2]])
        for _ in range(EAGER_STEPS + 1):
            rows.step([3] * rows._cache.rows)
        assert len(rows._cache.captured) == captured
        monkeypatch.setattr(tape.TapeCapture, "capture", lambda *given: {}["no room"])
    assert rows._cache.captured.refused == "'no room'"


def test_other_ops_and_those_that_are_watched_are_not_replayed(monkeypatch: pytest.MonkeyPatch):
    model = build({})
    cache, replayed = ready(model), replays(monkeypatch)
    for eagerly in (reference_ops(), watched_ops(lambda *given: lambda out, rule: rule)):
        with eagerly:
            read(model, cache, [[5]])
    assert not replayed
    read(model, cache, [[5]])
    assert len(replayed) == 1


def test_rows_that_have_not_joined_yet_are_read_eagerly():
    """With a known prefix they read one token, too, but into other memory."""
    found = []
    for capturing in (False, True):
        rows = shared_rows(build({}, capturing=capturing), prefix_bytes=1 << 20)
        rows.join([[1, 2, 3]])
        for _ in range(EAGER_STEPS + 1):
            rows.step([4])
        rows.leave(0)
        for last in (9, 10):
            found.append(DEVICE.to_host(rows.join([[1, 2, 3, last]])[1]).copy())
        found.append(DEVICE.to_host(rows.step([5, 6])).copy())
        assert not capturing or len(rows._cache.captured) == 1
    for ours, theirs in zip(found[:3], found[3:], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_cache_that_grows_lets_go_of_its_old_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cache_module, "FIRST_COLUMNS", 8)
    cache = ready(model := build({}))
    before = weakref.ref(cache.memory)
    assert len(cache.captured) == 1
    read(model, cache, [[1, 2, 3, 4, 5]])
    assert (before(), len(cache.captured)) == (None, 0)


def test_a_thread_captures_its_own_steps():
    """As a graph holds the memory in which its thread computes products."""
    cache = ready(model := build({}))
    (captured,) = cache.captured._steps.values()
    thread = threading.Thread(target=read, args=(model, cache, [[5]]))
    thread.start()
    thread.join()
    assert list(cache.captured._steps.values()) != [captured]


def test_nothing_is_captured_on_the_host_nor_without_kernels_nor_where_nobody_wants_it():
    reference = GPT(V, ModelOptions(**SMALL), compute=Compute.choose(DEVICE, "reference"))
    for model in (build({}, backend=get_backend("numpy")), reference, build({}, capturing=False)):
        assert model.new_cache(1).captured is None


@pytest.mark.parametrize("graph", [False, True])
def test_the_option_is_heard_in_training_and_afterwards(start: Start, graph: bool, monkeypatch: pytest.MonkeyPatch):
    run = start("run", steps=2, graph=graph)
    finish(run)
    saved = open_checkpoint(run.folder.path, SavedModel.load, say=print)
    for model in (run.train_step.model, load_model(saved, graph=graph)):
        assert isinstance(model, GPT)
        assert model.captures_steps == graph


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_a_gpu_replays_what_it_computes_eagerly(variant: dict[str, Any], dtype: str):
    with open_place("gpu") as gpu:
        eager, captured = (
            read_in_company(build(variant, capturing=capturing, dtype=dtype, backend=gpu))
            for capturing in (False, True)
        )
    for ours, theirs in zip(captured, eager, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_model_opened_for_inference_has_one_product_for_query_key_and_value(monkeypatch: pytest.MonkeyPatch):
    options = ModelOptions(**SMALL, bias=True)
    random = np.random.default_rng(0)
    weights = {name: random.normal(size=entry.shape) for name, _, entry in by_name(parameter_table(options, V))}
    model = GPT(V, options, compute=Compute.choose(DEVICE), weights=weights)
    products, gemm = [], linear.gemm
    monkeypatch.setattr(linear, "gemm", lambda *given, **named: products.append(1) or gemm(*given, **named))
    logits = read(model, model.new_cache(1), [[1, 2, 3]])
    assert len(products) == 1 + 4 * options.layers
    on_host = GPT(V, options, weights={name: x.astype(np.float32) for name, x in weights.items()})
    np.testing.assert_allclose(logits, on_host.next_token_logits(np.array([[1, 2, 3]])), rtol=1e-4, atol=1e-4)
