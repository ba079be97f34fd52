"""A plan says what its run then shows: counts exactly, times and memory as arithmetic over what was measured."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny import TINY
from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.config.resolve import resolve
from tinygrad_chat.errors import ConfigError, DataError, DivergedError, NoRoomError, TinygradChatError, UsageError
from tinygrad_chat.inference.load import load_model
from tinygrad_chat.models.size import flops_per_token
from tinygrad_chat.planning import fit as fitting
from tinygrad_chat.planning.fit import choose_accumulation, divisors, extrapolate, fit
from tinygrad_chat.planning.measurement import Measurement, measure
from tinygrad_chat.planning.plan import count_checkpoints, count_evaluations, predict
from tinygrad_chat.training.events import Evaluated, Logged, Saved
from tinygrad_chat.training.loop import train

Tiny = Callable[..., TrainingConfig]

MEASURED = Measurement(
    ranks=1,
    parameters=1000,
    vocabulary=30,
    validation_tokens=101,
    document_tokens=50.0,
    startup_seconds=0.5,
    steps=20,
    first_step_seconds=1.0,
    step_seconds=0.25,
    between_steps_seconds=0.01,
    evaluation_seconds_a_token=0.002,
    sample_seconds_a_token=0.004,
    checkpoint_seconds=0.03,
    built_memory=50 << 20,
    step_memory=60 << 20,
    peak_memory=70 << 20,
    device_memory=None,
    environment={},
)


@pytest.mark.profile("ci")
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"model": "bigram", "steps": 7, "checkpoint_every": 2},
        {"mode": "scalar", "layers": 1, "steps": 4, "eval_every": 9, "eval_tokens": 20},
        {"batch_size": 6, "grad_accumulation": 3, "optimizer": "sgd", "eval_tokens": 30, "checkpoint_every": 3},
    ],
    ids=["mini-gpt", "bigram", "scalar", "accumulate"],
)
def test_a_plan_counts_what_its_run_then_shows(tiny: Tiny, start: Callable[..., Any], settings: dict[str, Any]):
    config = tiny(**settings)
    plan = predict(config, measure(config, seconds=0.0))
    run = start(**settings)
    events = list(train(run))
    assert plan.parameters == run.model.parameters().size
    assert plan.vocabulary == run.tokenizer.size
    assert plan.steps == run.progress.step
    assert plan.tokens == run.progress.step * config.data.batch_size * config.model.context
    assert plan.flops == plan.tokens * flops_per_token(config.model, run.tokenizer.size)
    assert plan.evaluations == sum(isinstance(event, Evaluated) for event in events)
    assert plan.checkpoints == sum(isinstance(event, Saved) for event in events)
    predicted = next(event.evaluation.tokens for event in events if isinstance(event, Evaluated))
    assert plan.measurement.validation_tokens == predicted + 1
    assert min(dataclasses.astuple(plan.seconds)) >= 0
    assert 0 < plan.measurement.built_memory <= plan.measurement.step_memory <= plan.memory


@given(
    steps=st.integers(1, 60),
    every=st.integers(1, 20),
    beside=st.one_of(st.none(), st.integers(1, 20)),
)
def test_evaluations_and_checkpoints_are_counted_as_the_loop_takes_them(steps: int, every: int, beside: int | None):
    config = TrainingConfig.of(eval_every=every, checkpoint_every=beside)
    evaluated = {*range(0, steps + 1, every), steps}
    saved = evaluated | {*range(0, steps + 1, beside or every)}
    assert count_evaluations(config, steps) == len(evaluated)
    assert count_checkpoints(config, steps) == len(saved)


def test_seconds_are_those_of_each_part_times_how_often_it_comes():
    config = TrainingConfig.of(steps=10, eval_every=5, checkpoint_every=2, batch_size=2, context=8)
    plan = predict(config, MEASURED)
    assert plan.seconds.training == pytest.approx(1.0 + 9 * 0.25)
    assert plan.seconds.evaluations == pytest.approx(3 * (100 * 0.002 + 50 * 0.004))
    assert plan.seconds.checkpoints == pytest.approx(7 * 0.03)  # at 0 2 4 5 6 8 10
    assert plan.seconds.other == pytest.approx(10 * 0.01)
    assert plan.seconds.total == pytest.approx(3.25 + 1.2 + 0.21 + 0.1 + 0.5)
    assert plan.tokens_per_second == pytest.approx(160 / 3.25)
    assert plan.flops_per_second == pytest.approx(plan.flops / 3.25)
    assert json.loads(json.dumps(plan.to_json()))["seconds"]["total"] == plan.seconds.total


def test_long_documents_end_a_sample_at_its_limit():
    long = dataclasses.replace(MEASURED, document_tokens=1e6)
    plan = predict(TrainingConfig.of(steps=1), long)
    assert plan.seconds.evaluations == pytest.approx(2 * (100 * 0.002 + 200 * 0.004))


def test_minutes_decide_steps_and_tokens():
    plan = predict(resolve({"minutes": 0.1, "batch_size": 2, "context": 8}), MEASURED)
    assert plan.steps == 21  # a second for the first, then four a second until six are over
    assert plan.tokens == 21 * 16
    assert plan.seconds.training == pytest.approx(6.0)
    assert predict(resolve({"minutes": 0.1, "steps": 5}), MEASURED).steps == 5
    assert predict(resolve({"minutes": 0.001}), MEASURED).steps == 1


@pytest.mark.profile("ci")
def test_measuring_leaves_nothing_behind(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for folder in ("here", "temporary"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    measure(tiny(), seconds=0.0)
    assert [*(tmp_path / "here").iterdir(), *(tmp_path / "temporary").iterdir()] == []


@pytest.mark.profile("ci")
def test_what_cannot_be_run_cannot_be_measured(tiny: Tiny, tmp_path: Path):
    short = tmp_path / "short.txt"
    short.write_text("too short")
    with pytest.raises(DataError, match="expected at least 90 tokens"):
        measure(tiny(data=str(short)), seconds=0.0)
    with pytest.raises(DivergedError, match="lower --lr"):
        measure(tiny(optimizer="sgd", lr=1e30, clip=0.0, warmup=0, on_nan="rollback"), seconds=1.0)


@pytest.mark.profile("ci")
def test_a_model_larger_than_the_machine_is_never_built(tiny: Tiny):
    with pytest.raises(ConfigError, match=r"--width 1000000 .* parameters take at least [\d,.]+ GiB"):
        measure(tiny(width=10**6), seconds=0.0)


def test_a_process_that_takes_more_than_it_may_is_stopped(tiny: Tiny):
    with pytest.raises(
        NoRoomError, match=r"--batch-size 3 --grad-accumulation 1: the run takes more than the 0.000977 GiB"
    ):
        measure(tiny(), seconds=60.0, room=1 << 20)


LAUNCHER = "import subprocess, sys; [rank.wait() for rank in [subprocess.Popen(sys.argv[1:]) for _ in range(2)]]"
HUNGRY = "import os, sys, time; open(f'{sys.argv[1]}/{os.getpid()}', 'x'); memory = b'x' * (150 << 20); time.sleep(60)"


def test_ranks_that_take_more_than_they_may_together_are_stopped(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    launch = [sys.executable, "-c", LAUNCHER]
    monkeypatch.setattr("tinygrad_chat.planning.measurement.ranks_command", lambda ranks: launch)
    with pytest.raises(NoRoomError, match="the run takes more than the"):
        measure(tiny(), command=(sys.executable, "-S", "-c", HUNGRY, str(tmp_path)), room=250 << 20, ranks=2)
    ranks = [int(file.name) for file in tmp_path.iterdir()]
    assert len(ranks) == 2
    for rank in ranks:
        with contextlib.suppress(psutil.NoSuchProcess):
            while psutil.Process(rank).status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.01)  # killed, but not gone yet


@pytest.mark.parametrize("error", ["MemoryError", "MemoryShortageError"])
def test_a_process_that_is_refused_memory_has_no_room(tiny: Tiny, error: str):
    answer = json.dumps({"error": error, "message": "step 1: unable to allocate"})
    with pytest.raises(NoRoomError, match="the run takes more than the"):
        measure(tiny(), command=(sys.executable, "-c", f"print({answer!r})"))


@pytest.mark.parametrize(
    "answer",
    ["{", "{}", "[1]", "null", '{"first_step_seconds": NaN}', '{"error": 3}', '{"parameters": 1}', '{"error": "os"'],
)
def test_an_answer_that_is_none_is_last_words(tiny: Tiny, answer: str):
    with pytest.raises(
        TinygradChatError, match=rf"^the measuring process ended with exit code 0: {re.escape(answer)}$"
    ):
        measure(tiny(), command=(sys.executable, "-S", "-c", f"print({answer!r})"))


def test_an_error_of_no_known_name_is_still_an_error_of_ours(tiny: Tiny):
    answer = json.dumps({"error": "annotations", "message": "what happened"})
    with pytest.raises(TinygradChatError, match=r"^what happened$"):
        measure(tiny(), command=(sys.executable, "-S", "-c", f"print({answer!r})"))


def test_a_process_that_dies_leaves_its_last_words(tiny: Tiny):
    with pytest.raises(TinygradChatError, match="ended with exit code 3: farewell"):
        measure(tiny(), command=(sys.executable, "-c", "print('farewell'); raise SystemExit(3)"))


def test_a_checkpoint_that_claims_an_absurd_model_is_refused_at_once(start: Callable[..., Any]):
    run = start()
    assert [event for event in train(run) if isinstance(event, Logged)]
    saved = run.state().model
    with pytest.raises(ConfigError, match="are available here"):
        load_model(dataclasses.replace(saved, config=saved.config.replace(width=10**9)))


@given(
    base=st.integers(0, 10**6),
    slope=st.integers(0, 1000),
    windows=st.tuples(st.integers(1, 50), st.integers(51, 99)),
    wanted=st.integers(1, 500),
)
def test_extrapolation_follows_a_straight_line(base: int, slope: int, windows: tuple[int, int], wanted: int):
    measured = [(count, base + slope * count) for count in windows]
    assert extrapolate(measured, wanted) == pytest.approx(base + slope * wanted)


@given(st.integers(1, 500))
def test_divisors_are_all_of_them_in_order(number: int):
    assert list(divisors(number)) == [divisor for divisor in range(1, number + 1) if number % divisor == 0]


@given(batch_size=st.integers(1, 200), budget=st.integers(0, 3000))
def test_the_fewest_micro_batches_that_fit_are_chosen(batch_size: int, budget: int):
    chosen = choose_accumulation(batch_size, budget, [(1, 110), (2, 120)])  # 100 and 10 for each window
    fits = [number for number in divisors(batch_size) if 100 + 10 * batch_size / number <= budget]
    assert chosen == fits


def test_with_one_window_measured_no_more_is_tried():
    assert choose_accumulation(12, 1000, [(1, 100)]) == [12]
    assert choose_accumulation(12, 99, [(1, 100)]) == []


class Machine:
    """Stands in for `measure`: a step takes `base` bytes, `window` for each of its windows, and the rest `more`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, base: int, window: int, more: int = 0) -> None:
        self.base, self.window, self.more = base, window, more
        self.tried: list[int] = []
        monkeypatch.setattr(fitting, "measure", self.measure)
        monkeypatch.setattr(fitting, "_least_known", lambda config: 0)  # some bytes are enough for the model

    def measure(self, config: TrainingConfig, *, room: float | None = None, **_: Any) -> Measurement:
        windows = config.data.batch_size // config.compute.grad_accumulation
        self.tried.append(windows)
        memory = self.base + self.window * windows
        if room is not None and memory + self.more > room:
            raise NoRoomError("stopped")
        return dataclasses.replace(MEASURED, built_memory=self.base, step_memory=memory, peak_memory=memory + self.more)


def batch_of(windows: int) -> TrainingConfig:
    return resolve({**TINY, "batch_size": windows})


def test_fit_measures_two_small_micro_batches_and_the_one_it_chooses(monkeypatch: pytest.MonkeyPatch):
    machine = Machine(monkeypatch, base=1000, window=10)
    fitted = fit(batch_of(96), 1500)
    assert machine.tried == [1, 16, 48]
    assert (fitted.config.compute.grad_accumulation, fitted.plan.micro_batch, fitted.plan.memory) == (2, 48, 1480)
    assert fitted.measured == [(1, 1010), (16, 1160)]


def test_fit_goes_on_to_smaller_micro_batches_where_the_line_promised_too_much(monkeypatch: pytest.MonkeyPatch):
    machine = Machine(monkeypatch, base=1000, window=10, more=100)
    assert fit(batch_of(96), 1500).config.compute.grad_accumulation == 3
    assert machine.tried == [1, 16, 48, 32]


def test_fit_never_measures_a_micro_batch_that_could_take_more_than_it_may(monkeypatch: pytest.MonkeyPatch):
    machine = Machine(monkeypatch, base=1000, window=100)
    assert fit(batch_of(96), 1450).config.compute.grad_accumulation == 24
    assert machine.tried == [1, 4, 4]


def test_fit_says_what_one_window_needs_where_not_even_that_fits(monkeypatch: pytest.MonkeyPatch):
    Machine(monkeypatch, base=3 << 30, window=1 << 30)
    with pytest.raises(NoRoomError, match=r"at most 2 GiB .* it takes 4 GiB; choose a smaller --width"):
        fit(batch_of(96), 2 << 30)


@pytest.fixture
def nothing_to_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(config: TrainingConfig, **_: Any) -> Measurement:
        raise AssertionError("measured what could be refused at once")

    monkeypatch.setattr(fitting, "measure", measure)


@pytest.mark.usefixtures("nothing_to_measure")
def test_fit_asks_how_much_of_a_gpu_it_may_use(monkeypatch: pytest.MonkeyPatch):
    on_gpu = SimpleNamespace(backend=SimpleNamespace(memory_held=lambda: 1 << 30))
    monkeypatch.setattr(fitting, "choose_compute", lambda config: on_gpu)
    with pytest.raises(UsageError, match="--fit: on a GPU expected --memory"):
        fit(batch_of(4))


@pytest.mark.usefixtures("nothing_to_measure")
def test_fit_refuses_a_model_that_is_too_large_before_it_measures_anything():
    large = resolve({**TINY, "layers": 48, "width": 8192})
    weights = 4 * 4 * 48 * 12 * 8192**2  # bytes: as many again for the gradient and each of AdamW's two averages
    with pytest.raises(NoRoomError, match=r"at most 2 GiB .* it takes at least 5\d\d GiB; choose a smaller --width"):
        fit(large, 2 << 30)
    with pytest.raises(AssertionError, match="measured"):
        fit(large, 2 * weights)
