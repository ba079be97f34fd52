"""Captured steps leave the bits of eager ones, whatever changes from step to step, and what goes wrong while one is
captured is told in a line.

The device is tests/cuda_on_cpu's, which keeps each call with its addresses and computes nothing while it captures.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygrad_chat
from tests.cuda_on_cpu import tape
from tests.cuda_on_cpu.device import DEVICE, DeviceArray, no_waiting, standing_in
from tests.cuda_on_cpu.places import needs_compiler, open_place
from tests.training.test_conversations import CHATS, TINY
from tests.training.test_device import VARIANTS, new_muon
from tests.training.test_loop import Start, finish, log
from tinygrad_chat import GPT, ModelOptions
from tinygrad_chat.autograd import reference_ops
from tinygrad_chat.backend import EAGER_STEPS, Backend, Compute, Packet, Slot, compute, get_backend
from tinygrad_chat.cli.display import open_display
from tinygrad_chat.kernels.cuda import flash_attention
from tinygrad_chat.optim import SGD, AdamW
from tinygrad_chat.optim.optimizer import StepScalars
from tinygrad_chat.training import graphs
from tinygrad_chat.training.graphs import SEEDS
from tinygrad_chat.training.loop import train as train_run
from tinygrad_chat.training.run import resume_run
from tinygrad_chat.training.step import TrainStep

pytestmark = needs_compiler
V, B, T, STEPS = 19, 4, 6, EAGER_STEPS + 3
DOCUMENTS = {"document_mask": True, "document_token": 0}


@pytest.fixture(autouse=True)
def device(request: pytest.FixtureRequest) -> Iterator[None]:
    on_gpu = request.node.get_closest_marker("gpu") is not None
    with nullcontext() if on_gpu else standing_in(capturing=True):
        yield


def build(
    options: dict[str, Any],
    *,
    backend: Backend = DEVICE,
    dtype: str = "float32",
    kernels: str = "auto",
    optimizer: Any = AdamW,
    **settings: Any,
) -> TrainStep:
    chosen = ModelOptions(**{"layers": 2, "heads": 2, "width": 16, "context": T, **options})
    model = GPT(V, chosen, compute=Compute.choose(backend, kernels, dtype))
    parameters = model.parameters()
    made = new_muon(parameters, chosen, V) if optimizer is new_muon else optimizer(parameters)
    return TrainStep(model, made, lambda step: 0.01 / (step + 1), **{"clip": 0.5, **settings})


def batch_of(step: int, rows: int = B) -> tuple[np.ndarray, np.ndarray]:
    """Draw other tokens for each step, of which other numbers count."""
    tokens = np.random.default_rng(step).integers(0, V, (rows, T + 1))
    targets = tokens[:, 1:].copy()
    targets[0, : step % T] = -1
    return tokens[:, :-1], targets


def train(step: TrainStep, steps: int = STEPS, *, waits: bool = False, **options: Any) -> list[np.ndarray]:
    """Return every step's loss and norm, read after the last one, then the weights and the optimiser's state."""
    results = []
    for position in range(steps):
        random = np.random.default_rng(position)
        with nullcontext() if waits else no_waiting():
            results.append(step(batch_of(position), position, random=random, **options))
    found = [np.array([float(result.loss), float(result.grad_norm)]) for result in results]
    return [*found, *step.model.parameters().state().values(), *step.optimizer_state().values()]


def expect_same_bits(found: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def replays(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets an entry, the number of calls, for each replay."""
    found: list[int] = []
    replay = tape.Tape.replay

    def watched(self: tape.Tape) -> None:
        found.append(len(self.calls))
        replay(self)

    monkeypatch.setattr(tape.Tape, "replay", watched)
    return found


KINDS = [
    pytest.param({}, AdamW, id="GPT-2's"),
    pytest.param({**VARIANTS[1], "recompute": True}, SGD, id="a modern one's, recomputed"),
    pytest.param(VARIANTS[2], AdamW, id="with biases and dropout"),
    pytest.param({**VARIANTS[3], "dropout": 0.1}, new_muon, id="nanochat's, by Muon, with dropout"),
    pytest.param({**DOCUMENTS, "dropout": 0.1}, AdamW, id="within documents, with dropout"),
    pytest.param({"lora": 2, "positions": "rotary"}, AdamW, id="with adapters"),
    pytest.param({**VARIANTS[3], **DOCUMENTS, "recompute": True}, new_muon, id="nanochat's within documents"),
]


def expect_captured_steps_to_be_eager_ones(options: dict[str, Any], **settings: Any) -> None:
    options = {**options, "heads": 2}
    recompute, found = options.pop("recompute", False), []
    for capturing in (False, True):
        step = build(options, graphs=capturing, **settings)
        vars(step.model)["recompute"] = recompute
        found.append(train(step))
        assert step.why_eager is None
    expect_same_bits(*found)


@pytest.mark.profile("ci")
@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("options", "optimizer"), KINDS)
def test_captured_steps_leave_the_bits_of_eager_ones(
    options: dict[str, Any], optimizer: Any, dtype: str, micro_batches: int, monkeypatch: pytest.MonkeyPatch
):
    replayed = replays(monkeypatch)
    expect_captured_steps_to_be_eager_ones(options, dtype=dtype, optimizer=optimizer, grad_accumulation=micro_batches)
    assert len(replayed) == (micro_batches + 1) * (STEPS - EAGER_STEPS)


@pytest.mark.profile("ci")
@pytest.mark.parametrize("by_wgmma", [False, True])
def test_flash_attention_within_documents_is_captured_too(by_wgmma: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(DEVICE, "compute_capability", "90")
    monkeypatch.setattr(flash_attention, "WITH_WGMMA", flash_attention.WITH_WGMMA if by_wgmma else ())
    replayed, taken, flash = replays(monkeypatch), [], flash_attention.attention

    def watched(*inputs: Any, document_starts: Any, **options: Any) -> Any:
        taken.append(document_starts is not None)
        return flash(*inputs, document_starts=document_starts, **options)

    monkeypatch.setattr(flash_attention, "attention", watched)
    options = {**DOCUMENTS, "width": 128, "positions": "rotary", "window": 4, "dropout": 0.1}
    expect_captured_steps_to_be_eager_ones(options, dtype="bfloat16", grad_accumulation=2)
    assert all(taken)
    times = STEPS + EAGER_STEPS + 2  # eager alone, eager before the capture, warm-up, captured
    assert len(taken) == 2 * 2 * times  # layers, micro-batches
    assert len(replayed) == 3 * (STEPS - EAGER_STEPS)


@pytest.mark.parametrize(("options", "optimizer"), KINDS)
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_a_replayed_step_is_a_packet_and_a_launch_for_each_micro_batch_and_one_more_for_the_update(
    options: dict[str, Any], optimizer: Any, micro_batches: int, monkeypatch: pytest.MonkeyPatch
):
    options = {name: value for name, value in options.items() if name != "recompute"}
    step = build({**options, "heads": 2}, optimizer=optimizer, graphs=True, grad_accumulation=micro_batches)
    train(step, EAGER_STEPS + 1)
    random, sent, copied, one_by_one, launched = np.random.default_rng(STEPS), [], [], [], replays(monkeypatch)
    send, copy, result_of = DEVICE.send, DeviceArray.copy, tape.result_of

    def computed(function: Any, *arguments: Any) -> Any:
        result = result_of(function, *arguments)
        if not tape._views(result, tape._arrays(arguments)):
            one_by_one.append(function)
        return result

    monkeypatch.setattr(DEVICE, "send", lambda values, array: (sent.append(array.shape), send(values, array)))
    monkeypatch.setattr(DeviceArray, "copy", lambda array: (copied.append(array.shape), copy(array))[1])
    monkeypatch.setattr(tape, "submit", lambda function, *arguments: one_by_one.append(function))
    monkeypatch.setattr(tape, "result_of", computed)
    step(batch_of(STEPS), STEPS, random=random)
    assert len(launched) == micro_batches + 1
    assert len(sent) == micro_batches  # so of one micro-batch, three calls
    assert copied == [(2,)]  # loss and norm, for whoever wants them
    assert not one_by_one


@pytest.mark.gpu
@pytest.mark.parametrize(("options", "optimizer"), KINDS)
def test_on_a_gpu_graphs_leave_the_bits_of_eager_steps(options: dict[str, Any], optimizer: Any):
    with open_place("gpu") as gpu:
        expect_captured_steps_to_be_eager_ones(options, backend=gpu, optimizer=optimizer, grad_accumulation=2)


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_a_captured_gradient_is_written_over_what_the_buffer_held(micro_batches: int, monkeypatch: pytest.MonkeyPatch):
    replayed, found = replays(monkeypatch), []
    for capturing in (False, True):
        step = build({}, graphs=capturing, grad_accumulation=micro_batches)
        parameters = step.model.parameters()
        monkeypatch.setattr(parameters, "zero_gradient", lambda: pytest.fail("the buffer is zeroed"))
        train(step)
        parameters.gradient.fill(math.nan)
        found.append(train(step, steps=1))
    assert len(replayed) == (micro_batches + 1) * (STEPS + 1 - EAGER_STEPS)
    expect_same_bits(*found)


def test_the_model_runs_once_more_before_it_is_captured_and_then_never_again(monkeypatch: pytest.MonkeyPatch):
    """So that no kernel is loaded while a stream captures."""
    captured: list[bool] = []
    loss = GPT.loss

    def watched(*given: Any, **options: Any) -> Any:
        captured.append(tape.is_capturing())
        return loss(*given, **options)

    monkeypatch.setattr(GPT, "loss", watched)
    train(build({}, graphs=True))
    assert captured == [*[False] * EAGER_STEPS, False, True]


# Faults planted: what each would burn into a graph, or leave behind.


def sent_once(monkeypatch: pytest.MonkeyPatch, chosen: Callable[[Slot], bool]) -> None:
    """Let the packet hold what was first written to the slots chosen."""
    write, written = Slot.write, set[Slot]()

    def once(self: Slot, values: Any) -> None:
        if not (chosen(self) and self in written):
            write(self, values)
        written.add(self)

    monkeypatch.setattr(Slot, "write", once)


def tokens_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    sent_once(monkeypatch, lambda slot: slot.array.shape == (B, T))


def seeds_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    sent_once(monkeypatch, lambda slot: slot.array.size == SEEDS)


def a_packet_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    send = Packet.send

    def first_only(self: Packet) -> None:
        if len(self.slots) == 1 or self._sent[1] is None:
            send(self)

    monkeypatch.setattr(Packet, "send", first_only)


def a_rate_burnt_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers of the step before the capture."""
    get = StepScalars.__getitem__

    def burnt(self: StepScalars, row: int) -> Any:
        if not tape.is_capturing():
            self.__dict__["latest"] = get(self, row).copy()
        return self.__dict__["latest"]

    monkeypatch.setattr(StepScalars, "__getitem__", burnt)


def a_buffer_that_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    send = Packet.send

    def moved(self: Packet) -> None:
        self._array = self._array.copy()
        for slot in self.slots:
            slot.array = slot.array.copy()
        send(self)

    monkeypatch.setattr(Packet, "send", moved)


def a_count_burnt_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "count_targets", lambda targets: B * T)


def documents_burnt_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the step before the capture."""
    find, found = GPT._document_starts, []

    def burnt(*given: Any) -> Any:
        found.append(found[-1] if tape.is_capturing() else find(*given))
        return found[-1]

    monkeypatch.setattr(GPT, "_document_starts", burnt)


FAULTS = [
    tokens_not_sent,
    seeds_not_sent,
    a_packet_not_sent,
    a_rate_burnt_in,
    a_buffer_that_moved,
    a_count_burnt_in,
    documents_burnt_in,
]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_shows(fault: Any, monkeypatch: pytest.MonkeyPatch):
    options = {**VARIANTS[2], **DOCUMENTS, "heads": 2}
    wanted = train(build(options))
    fault(monkeypatch)
    with pytest.raises((AssertionError, tape.CaptureError), match=r"not equal|memory that has been freed"):
        expect_same_bits(train(build(options, graphs=True)), wanted)


# What stays eager, and what is told.


@pytest.mark.parametrize(
    "error", [MemoryError("Out of memory\nallocating 9 bytes"), RuntimeError("captures"), OSError()]
)
def test_a_step_that_cannot_be_captured_is_taken_eagerly_with_a_line(error: Exception, monkeypatch: pytest.MonkeyPatch):
    wanted = train(build({}))

    def refuse(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(tape.TapeCapture, "capture", refuse)
    step = build({}, graphs=True)
    expect_same_bits(train(step), wanted)
    assert step.why_eager == (" ".join(str(error).split()) or "OSError")


def test_a_model_that_asks_for_what_cannot_be_captured_stays_eager():
    found = []
    for capturing in (False, True):
        step = build({}, kernels="reference", graphs=capturing)
        found.append(train(step, waits=True))
        why = "a product of CuPy's own: not while a stream captures"
        assert step.why_eager == (why if capturing else None)
    expect_same_bits(*found)


def test_other_shapes_stay_eager_and_change_nothing(monkeypatch: pytest.MonkeyPatch):
    replayed, found = replays(monkeypatch), []
    rows = [B, 2, *[B] * (EAGER_STEPS + 2), 2, B, 3, B]  # a shape is captured only after it came some times in a row
    for capturing in (False, True):
        step = build({}, grad_accumulation=2, graphs=capturing)
        for position, count in enumerate(rows):
            step(batch_of(position, count), position)
        found.append([*step.model.parameters().state().values()])
    assert len(replayed) == (2 + 1) * 4
    expect_same_bits(*found)


def test_a_look_between_gradient_and_update_sees_the_loss_and_may_skip_the_update(monkeypatch: pytest.MonkeyPatch):
    replayed, found = replays(monkeypatch), []
    for capturing in (False, True):
        step, seen = build({}, graphs=capturing), []

        def skip(loss: float, seen: list[float] = seen) -> bool:
            seen.append(loss)
            return len(seen) in (2, STEPS)

        found.append([*train(step, waits=True, skip=skip), np.array(seen)])
    assert len(replayed) == 2 * (STEPS - EAGER_STEPS) - 1
    expect_same_bits(*found)


@pytest.mark.parametrize("options", [{}, DOCUMENTS], ids=["everywhere", "within documents"])
def test_weighted_targets_are_sent_too(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    replayed, found = replays(monkeypatch), []
    for capturing in (False, True):
        step = build(options, graphs=capturing)
        for position in range(STEPS):
            weights = np.random.default_rng(position).standard_normal((B, T))
            step((*batch_of(position), weights), position)
        found.append([*step.model.parameters().state().values()])
    assert len(replayed) == 2 * (STEPS - EAGER_STEPS)
    expect_same_bits(*found)


def test_a_token_beyond_32_bits_is_none_of_the_vocabulary_in_a_captured_step_either(monkeypatch: pytest.MonkeyPatch):
    replayed = replays(monkeypatch)
    for place in (0, 1):  # among tokens and among targets
        step = build({}, graphs=True)
        train(step)
        batch = [array.copy() for array in batch_of(STEPS)]
        batch[place][1, 2] = 2**32
        assert math.isnan(float(step((batch[0], batch[1]), STEPS, random=np.random.default_rng(0)).loss))
    assert len(replayed) == 2 * 2 * (STEPS + 1 - EAGER_STEPS)


def test_a_graph_holds_for_its_settings_only(monkeypatch: pytest.MonkeyPatch):
    replayed, found = replays(monkeypatch), []
    for capturing in (False, True):
        step = build({}, graphs=capturing)
        train(step)
        step.clip = 0.01
        found.append(train(step, steps=2))
        with reference_ops():
            step.clip = 0.5
            train(step, steps=1, waits=True)
    assert len(replayed) == 2 * (STEPS - EAGER_STEPS)
    expect_same_bits(*found)


# Whole runs.


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `--backend cupy` be the stand-in, on which samples are drawn eagerly: only a run's own steps are counted."""
    monkeypatch.setattr(compute, "get_backend", lambda name: DEVICE if name == "cupy" else get_backend(name))
    monkeypatch.setattr(GPT, "_new_capture", lambda self: None)


@pytest.mark.usefixtures("on_device")
def test_a_run_is_the_same_without_graphs_and_when_it_is_resumed(start: Start, monkeypatch: pytest.MonkeyPatch):
    replayed = replays(monkeypatch)
    settings = {"steps": 9, "eval_every": 4, "backend": "cupy", "dropout": 0.1, "grad_accumulation": 3}
    eager = start("eager", graph=False, **settings)
    finish(eager)
    assert not replayed
    captured = start("captured", **settings)
    finish(captured, stop_after=5)
    assert len(replayed) == 4 * (5 - EAGER_STEPS)
    finish(resume_run(captured.folder.path, {}))
    assert len(replayed) == 4 * (9 - 2 * EAGER_STEPS)
    ours, theirs = (
        [{name: record.get(name) for name in ("step", "loss", "val_loss", "grad_norm")} for record in log(run)]
        for run in (captured, eager)
    )
    assert ours == theirs


@pytest.mark.usefixtures("on_device")
def test_a_run_on_conversations_each_by_itself_is_captured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    replayed, logs = replays(monkeypatch), []
    settings = {**TINY, "document_mask": True, "dropout": 0.1, "grad_accumulation": 2, "steps": 6, "backend": "cupy"}
    for graph in (False, True):
        assert not replayed
        tinygrad_chat.train(CHATS, out=tmp_path / str(graph), graph=graph, **settings)
        logged = map(json.loads, (tmp_path / str(graph) / "log.jsonl").read_text(encoding="utf-8").splitlines())
        logs.append([[record.get(name) for name in ("step", "loss", "val_loss", "grad_norm")] for record in logged])
    assert len(replayed) == 3 * (6 - EAGER_STEPS)
    assert logs[0] == logs[1]


@pytest.mark.usefixtures("on_device")
def test_no_room_while_a_step_is_captured_is_a_line_and_the_run_goes_on(start: Start, monkeypatch: pytest.MonkeyPatch):
    def full(*_: Any) -> Any:
        raise MemoryError("Out of memory allocating 9 bytes")

    monkeypatch.setattr(tape.TapeCapture, "capture", full)
    run, shown = start("run", steps=5, backend="cupy"), io.StringIO()
    with open_display(shown) as display:
        display.begin(run)
        for event in train_run(run):
            display.show(event)
    assert run.progress.step == 5
    line = "step 2: no CUDA graph (Out of memory allocating 9 bytes); steps stay eager, as by --no-graph"
    assert shown.getvalue().splitlines().count(line) == 1


@pytest.mark.usefixtures("on_device")
def test_a_run_by_reference_ops_stays_eager_without_a_word(start: Start):
    run = start("run", steps=5, backend="cupy", kernels="reference")
    finish(run)
    assert (run.train_step.captured, run.train_step.why_eager) == (False, None)


def test_on_the_host_the_option_does_nothing(start: Start):
    for graph in (False, True):
        run = start(f"{graph}", graph=graph)
        finish(run)
        assert run.train_step.why_eager is None
    assert run.config.compute.graph
