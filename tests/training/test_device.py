"""Training on a device: in every precision, without waiting, the same bits again, and on the host from its checkpoint.

The device is tests/cuda_on_cpu's, which runs the kernels' own source on the host, or a GPU.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.cuda_on_cpu.device import DEVICE, DeviceArray, no_waiting, standing_in
from tests.cuda_on_cpu.places import PLACES, needs_compiler, open_place
from tests.training.test_loop import Start, finish, log
from tinygrad_chat import GPT, ModelOptions, Tensor, ops
from tinygrad_chat.backend import Backend, Compute, compute, get_backend
from tinygrad_chat.errors import BackendError, DivergedError, MemoryShortageError
from tinygrad_chat.inference.load import load_model
from tinygrad_chat.kernels.cuda import attention, flash_attention
from tinygrad_chat.models.nanochat import NANOCHAT
from tinygrad_chat.models.parameter_table import parameter_roles
from tinygrad_chat.nn import Parameters
from tinygrad_chat.optim import AdamW, Muon, adamw_groups
from tinygrad_chat.runs.lookup import open_checkpoint
from tinygrad_chat.runs.state import SavedModel
from tinygrad_chat.training import step as step_module
from tinygrad_chat.training.batches import Batches
from tinygrad_chat.training.facts import resolve_with_facts
from tinygrad_chat.training.run import resume_run, start_run
from tinygrad_chat.training.step import StepResult, TrainStep, accumulate_gradient

VARIANTS: list[dict[str, Any]] = [
    {},
    {"positions": "rotary", "norm": "rmsnorm", "activation": "squared_relu", "soft_cap": 15.0, "key_value_heads": 2},
    {"bias": True, "tied": False, "window": 5, "dropout": 0.2},
    {**NANOCHAT, "heads": 2, "vocabulary_multiple": 8, "window": 5},
]
NAMES = ["GPT-2's", "a modern one", "with biases and dropout", "nanochat's"]
V, B, T = 65, 4, 16


@pytest.fixture(params=PLACES)
def device(request: pytest.FixtureRequest) -> Iterator[Backend]:
    with open_place(request.param) as backend:
        yield backend


def train(backend: Backend, variant: dict[str, Any], steps: int, dtype: str) -> tuple[list[float], np.ndarray]:
    """Train in a precision; return the losses and the weights."""
    options = ModelOptions(**{"layers": 2, "heads": 4, "width": 32, "context": T, **variant})
    model = GPT(V, options, compute=Compute.choose(backend, dtype=dtype))
    parameters, losses = model.parameters(), []
    optimizer = new_muon(parameters, options) if options.initialisation == "nanochat" else AdamW(parameters)
    train_step = TrainStep(model, optimizer, lambda step: 3e-3, clip=1.0)
    for step in range(steps):
        tokens = np.random.default_rng(step % 4).integers(0, V, (B, T + 1))
        random = np.random.default_rng(step) if options.dropout else None
        with no_waiting():
            result = train_step((tokens[:, :-1], tokens[:, 1:]), step, random=random)
        losses.append(float(result.loss))
    return losses, parameters.backend.to_host(parameters.data).copy()


def new_muon(parameters: Parameters, options: ModelOptions, vocabulary: int = V) -> Muon:
    """Muon with nanochat's groups, for weights off the zeros where nanochat begins: by the gradients there, which are
    rounding errors, AdamW would move as far as by any others."""
    random = np.random.default_rng(0)
    moved = {name: x + 0.1 * random.standard_normal(x.shape) for name, x in parameters.state().items()}
    parameters.load(moved)
    groups = adamw_groups(parameter_roles(options, vocabulary), lr=0.02, embedding_lr=0.3, head_lr=0.008, scalar_lr=0.5)
    return Muon(parameters, groups, momentum=lambda position: 0.95, weight_decay=lambda position: 0.1)


@pytest.mark.profile("ci")
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("tf32", 1e-2), ("bfloat16", 1e-2)])
@pytest.mark.parametrize(
    ("variant", "steps"),
    [
        *(pytest.param(variant, 5, id=name) for variant, name in zip(VARIANTS, NAMES, strict=True)),
        pytest.param({}, 20, id="GPT-2's, longer", marks=pytest.mark.profile("ci")),
    ],
)
def test_losses_are_those_of_the_host_and_nobody_waits(device: Backend, variant, steps, dtype, tolerance):
    on_host = train(get_backend("numpy"), variant, steps, "float32")[0]
    if device is DEVICE and dtype == "float32":
        tolerance /= 10  # whose products are added in another order than a GPU's
    np.testing.assert_allclose(train(device, variant, steps, dtype)[0], on_host, rtol=tolerance)


@pytest.mark.profile("ci")
@pytest.mark.parametrize("by_wgmma", [False, True])
def test_flash_attention_trains_as_the_host_does(device: Backend, by_wgmma: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(DEVICE, "compute_capability", "90")
    monkeypatch.setattr(flash_attention, "WITH_WGMMA", flash_attention.WITH_WGMMA if by_wgmma else ())
    taken, flash = [], flash_attention.attention
    monkeypatch.setattr(
        flash_attention, "attention", lambda *inputs, **options: taken.append(1) or flash(*inputs, **options)
    )
    variant = {"width": 128, "heads": 2, "key_value_heads": 1, "positions": "rotary", "window": 5}
    on_host = train(get_backend("numpy"), variant, 3, "float32")[0]
    np.testing.assert_allclose(train(device, variant, 3, "bfloat16")[0], on_host, rtol=1e-2)
    assert len(taken) == 3 * 2  # steps and layers


@pytest.mark.profile("ci")
def test_each_precision_rounds_as_it_says(device: Backend):
    losses = {dtype: train(device, {}, 2, dtype)[0][1] for dtype in ("float32", "tf32", "bfloat16")}
    errors = {
        dtype: abs(loss / train(get_backend("numpy"), {}, 2, "float32")[0][1] - 1) for dtype, loss in losses.items()
    }
    assert errors["float32"] < 1e-6 < errors["tf32"] < 1e-3
    assert errors["bfloat16"] > 1e-6


@pytest.mark.profile("ci")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("variant", VARIANTS[2:], ids=NAMES[2:])
def test_the_same_steps_leave_the_same_bits(device: Backend, variant: dict[str, Any], dtype: str):
    once, again = (train(device, variant, 2, dtype) for _ in range(2))
    assert once[0] == again[0]
    np.testing.assert_array_equal(once[1], again[1])


@pytest.mark.profile("ci")
@needs_compiler
@pytest.mark.parametrize("variant", VARIANTS, ids=NAMES)
def test_of_bfloat16_the_library_is_asked_for_room_copies_and_sums_of_two(
    variant: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    """CuPy's own functions know no more of it, or answer in float32."""
    asked: set[str] = set()
    of_arrays, of_library = DeviceArray.__array_ufunc__, type(DEVICE.xp).__getattr__

    def ask(name: str, inputs: tuple[Any, ...]) -> None:
        if any(isinstance(x, DeviceArray) and x.dtype.name == "bfloat16" for x in inputs):
            asked.add(name)

    def of_arrays_watched(self: Any, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        ask(ufunc.__name__ if method == "__call__" else method, inputs)
        return of_arrays(self, ufunc, method, *inputs, **options)

    def of_library_watched(self: Any, name: str) -> Any:
        function = of_library(self, name)
        if not callable(function) or isinstance(function, (type, np.ufunc)):
            return function
        return lambda *inputs, **options: (ask(name, inputs), function(*inputs, **options))[1]

    monkeypatch.setattr(DeviceArray, "__array_ufunc__", of_arrays_watched)
    monkeypatch.setattr(type(DEVICE.xp), "__getattr__", of_library_watched)
    with open_place("host") as device:
        train(device, variant, 2, "bfloat16")
    assert "add" in asked
    assert asked <= {"add", "asarray", "empty_like", "zeros_like"}


@needs_compiler
def test_the_gradient_of_a_part_of_a_weight_is_not_rounded():
    """Of a head without the rows that pad it."""
    with standing_in():
        weight = Tensor(DEVICE.xp.ones((6, 4), "bfloat16"))
        part = ops.linear(Tensor(DEVICE.xp.full((3, 4), 1 + 2**-7, "bfloat16")), weight[:5])
        part.backward(DEVICE.xp.full((3, 5), 1 + 2**-7, "bfloat16"))
        np.testing.assert_array_equal(DEVICE.to_host(weight.grad)[4:], [[3 * (1 + 2**-7) ** 2] * 4, [0] * 4])


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("variant", VARIANTS, ids=NAMES)
def test_a_gradient_is_written_over_what_the_buffer_held(
    device: Backend, variant: dict[str, Any], micro_batches: int, monkeypatch: pytest.MonkeyPatch
):
    options = ModelOptions(**{"layers": 2, "heads": 4, "width": 32, "context": T, **variant})
    tokens = np.random.default_rng(0).integers(0, V, (B, T + 1))
    gradients = []
    for backend in (device, get_backend("numpy")):
        parameters = (model := GPT(V, options, compute=Compute.choose(backend, dtype="float32"))).parameters()
        parameters.gradient.fill(math.nan)
        if backend is device:
            monkeypatch.setattr(parameters, "zero_gradient", lambda: pytest.fail("the buffer is zeroed"))
        random = np.random.default_rng(0) if options.dropout else None
        accumulate_gradient(model, (tokens[:, :-1], tokens[:, 1:]), micro_batches=micro_batches, random=random)
        gradients.append(backend.to_host(parameters.gradient))
    np.testing.assert_allclose(*gradients, rtol=1e-3, atol=1e-5)


def test_weights_that_a_loss_does_not_use_have_a_gradient_of_zeros(device: Backend):
    model = GPT(V, ModelOptions(layers=1, heads=2, width=8, context=T), compute=Compute.choose(device, dtype="float32"))
    parameters = model.parameters()
    parameters.gradient.fill(math.nan)
    used = parameters["token_embedding.weight"]
    partial: Any = SimpleNamespace(
        parameters=model.parameters, loss=lambda tokens, *_, **__: ops.embedding(used, device.xp.asarray(tokens)).sum()
    )
    tokens = np.zeros((B, T), np.int64)
    accumulate_gradient(partial, (tokens, tokens), micro_batches=1)
    expected = {name: np.zeros(parameters[name].shape) for name in parameters}
    expected["token_embedding.weight"][0] = B * T
    for name, gradient in expected.items():
        np.testing.assert_array_equal(device.to_host(parameters[name].grad), gradient, err_msg=name)


@pytest.mark.profile("ci")
def test_attention_a_few_sequences_at_a_time_is_the_same(device: Backend, monkeypatch: pytest.MonkeyPatch):
    whole = train(device, {}, 3, "float32")[1]
    monkeypatch.setattr(attention, "scores_in_cache", lambda xp, device: 3 * 4 * T * T)
    np.testing.assert_allclose(train(device, {}, 3, "float32")[1], whole, rtol=0, atol=1e-5)


# Whole runs.


@pytest.fixture
def on_device(device: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `--backend cupy` be the device of the test."""
    monkeypatch.setattr(compute, "get_backend", lambda name: device if name == "cupy" else get_backend(name))


@pytest.mark.profile("ci")
@pytest.mark.usefixtures("on_device")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "settings",
    [{}, {**VARIANTS[3], "width": 32, "optimizer": "muon", "initialisation": "gpt2", "lr": 2e-3}],  # see new_muon
    ids=["GPT-2's", "nanochat's"],
)
def test_a_run_begun_on_a_device_goes_on_on_the_host_and_back(start: Start, settings: dict[str, Any], dtype: str):
    host = start("host", steps=9, backend="numpy", **settings)
    finish(host)
    moved = start("moved", steps=9, backend="cupy", dtype=dtype, **settings)
    finish(moved, stop_after=3)
    assert json.loads((moved.folder.path / "environment.json").read_text())[-1]["dtype"] == dtype
    finish(resume_run(moved.folder.path, {"backend": "numpy", "dtype": "auto"}), stop_after=6)
    finish(resume_run(moved.folder.path, {"backend": "cupy", "dtype": dtype}))
    ours, theirs = (
        [record[key] for record in log(run) for key in ("loss", "val_loss") if key in record] for run in (moved, host)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-4 if dtype == "float32" else 1e-2)
    saved = open_checkpoint(moved.folder.path, SavedModel.load, say=lambda line: None)
    assert {array.dtype for array in saved.weights.values()} == {np.dtype(np.float32)}
    texts = []
    for backend in ("numpy", "cupy"):
        model = load_model(saved, backend=backend, dtype="float32")
        logits = model.next_token_logits(np.array([[saved.tokenizer.bos]]), model.new_cache(1))
        texts.append(model.parameters().backend.to_host(logits))
    np.testing.assert_allclose(texts[0], texts[1], rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("on_device")
def test_the_next_batch_is_drawn_while_the_device_computes(start: Start, monkeypatch: pytest.MonkeyPatch):
    run, happened = start("run", steps=3, backend="cupy"), []
    draw, step = Batches._draw, TrainStep.__call__

    def draw_watched(batches: Batches, number: int) -> Any:
        happened.append(f"batch {number}")
        return draw(batches, number)

    def step_watched(train_step: TrainStep, *given: Any, **options: Any) -> StepResult:
        happened.append("step")
        result = step(train_step, *given, **options)
        return result._replace(loss=Read(result.loss))

    class Read:
        """A loss that notices when the host reads it."""

        def __init__(self, loss: Any) -> None:
            self.loss = loss

        def __float__(self) -> float:
            happened.append("read")
            return float(self.loss)

    monkeypatch.setattr(Batches, "_draw", draw_watched)
    monkeypatch.setattr(TrainStep, "__call__", step_watched)
    finish(run)
    each = ["step", "batch 1", "read", "step", "batch 2", "read", "step", "batch 3", "read"]
    assert happened == ["batch 0", *each]


@pytest.mark.usefixtures("on_device")
def test_a_run_that_computes_with_rounded_weights_starts_from_its_parents_whole_ones(start: Start):
    parent = start("parent", backend="numpy")
    finish(parent)
    flags = {"start_from": str(parent.folder.path), "backend": "cupy", "dtype": "bfloat16"}
    run = start_run(resolve_with_facts(flags)[0], parent.folder.path.parent / "run")
    for name, weight in parent.model.parameters().state().items():
        np.testing.assert_array_equal(run.model.parameters().state()[name], weight)


@pytest.mark.profile("ci")
@pytest.mark.usefixtures("on_device")
def test_a_gradient_that_is_no_number_leaves_the_weights_as_they_were(
    start: Start, device: Backend, monkeypatch: pytest.MonkeyPatch
):
    run = start("run", steps=5, backend="cupy", dtype="bfloat16", on_nan="rollback")
    original = step_module.accumulate_gradient

    def sometimes(*given: Any, **options: Any) -> Any:
        return original(*given, **options) * (math.nan if run.progress.step == 2 else 1)

    monkeypatch.setattr(step_module, "accumulate_gradient", sometimes)
    before = []
    step = run.train_step.optimizer.update

    def watched(*given: Any) -> None:
        before.append(device.to_host(run.model.parameters().data).copy())
        step(*given)
        if run.progress.step == 2:
            np.testing.assert_array_equal(device.to_host(run.model.parameters().data), before[-1])

    monkeypatch.setattr(run.train_step.optimizer, "update", watched)
    with pytest.raises(DivergedError, match="step 2: the loss is nan"):
        finish(run)
    assert len(before) >= 3


@pytest.mark.usefixtures("on_device")
def test_no_room_on_the_device_is_one_line_with_what_helps(start: Start, monkeypatch: pytest.MonkeyPatch):
    run = start("run", steps=5, backend="cupy", dtype="float32", graph=False)

    def full(*_: Any, **__: Any) -> Any:
        if run.progress.step == 3:
            raise MemoryError("Out of memory allocating 1,234,567 bytes (allocated so far: 89 bytes).")
        return original(*_, **__)

    original = step_module.accumulate_gradient
    monkeypatch.setattr(step_module, "accumulate_gradient", full)
    with pytest.raises(
        MemoryShortageError,
        match=r"^step 3: out of memory allocating 1,234,567 bytes \(allocated so far: 89 bytes\), with [\d,]+ MiB free "
        r"on .*; split the batch into more micro-batches with --grad-accumulation, or choose .*; the checkpoint of "
        r"step \d",
    ):
        finish(run)
    assert "out of memory" in (run.folder.path / "report.md").read_text()


@pytest.mark.parametrize(
    ("kernels", "dtype", "expected"),
    [("auto", "float16", "auto, float32, bfloat16, tf32"), ("reference", "bfloat16", "auto, float32, tf32")],
)
def test_a_precision_that_cannot_be_had_is_refused(kernels: str, dtype: str, expected: str):
    with pytest.raises(BackendError, match=f"^--dtype: expected {expected} with .*, received {dtype}$"):
        Compute.choose(DEVICE, kernels, dtype)


def test_the_host_computes_in_float32_only():
    with pytest.raises(BackendError, match=r"^--dtype: expected auto, float32 with --backend numpy"):
        Compute.choose("numpy", dtype="bfloat16")
