"""Models of different back ends, kernels and precisions in one process: each computes what it computes alone.

The device is tests/cuda_on_cpu's stand-in. That the results tell the computes apart is a claim of its own.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from tests.cuda_on_cpu.device import DEVICE, standing_in
from tests.cuda_on_cpu.places import needs_compiler
from tests.training.test_loop import Start, finish, log
from tinygrad_chat import GPT, Compute, ModelOptions
from tinygrad_chat.autograd import computing_with
from tinygrad_chat.backend import compute, get_backend, to_host
from tinygrad_chat.inference.generation import generate
from tinygrad_chat.optim import AdamW, clip_gradient
from tinygrad_chat.training.evaluation import evaluate
from tinygrad_chat.training.loop import train

pytestmark = needs_compiler

V, B, T = 17, 2, 8
OPTIONS = ModelOptions(layers=2, heads=2, width=16, context=T, bias=True, soft_cap=5.0, tied=False)
KERNELS = ["numba", "numpy", "reference"] if find_spec("numba") else ["numpy", "reference"]
CHOICES: list[tuple[Any, str, str]] = [
    *[("numpy", kernels, "float32") for kernels in KERNELS],
    *[(DEVICE, "cuda", dtype) for dtype in ("float32", "tf32", "bfloat16")],
    (DEVICE, "reference", "float32"),
]
Numbers = list[np.ndarray]
Results = list[Numbers]  # of each choice


def work(chosen: Compute) -> Generator[None, None, Numbers]:
    """Train, evaluate and sample, pausing wherever another model might come in between; return all numbers."""
    model = GPT(V, OPTIONS, compute=chosen)
    parameters = model.parameters()
    optimizer, numbers = AdamW(parameters), []
    for step in range(3):
        tokens = np.random.default_rng(step).integers(0, V, (B, T + 1))
        parameters.zero_gradient()
        yield
        loss = model.loss(tokens[:, :-1], tokens[:, 1:])
        yield
        loss.backward()
        yield
        norm = clip_gradient(parameters, 1.0)
        yield
        optimizer.step(0.01, norm)
        yield
        numbers += [to_host(loss.data).copy(), to_host(parameters.gradient).copy(), to_host(parameters.data).copy()]
    numbers.append(np.array(evaluate(model, np.arange(20) % V, np.ones(V, int), batch_size=2).loss))
    cache, logits = model.new_cache(1), []
    for token in range(T):
        yield
        logits.append(to_host(model.next_token_logits(np.array([[token]]), cache)).copy())
    text = []
    for token in generate(model, [1, 2], max_new_tokens=12, random=np.random.default_rng(3)):
        text.append(token)
        yield
    return [*numbers, np.array(logits), np.array(text)]


def finished(work: Generator[None, None, Numbers]) -> Numbers:
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def expect_same(found: Results, expected: Results) -> None:
    for choice, mine, reference in zip(CHOICES, found, expected, strict=True):
        for number, (x, y) in enumerate(zip(mine, reference, strict=True)):
            np.testing.assert_array_equal(x, y, err_msg=f"number {number} of {choice}")


@pytest.fixture(scope="module")
def computes() -> Iterator[list[Compute]]:
    with standing_in():
        yield [Compute.choose(*choice) for choice in CHOICES]


@pytest.fixture(scope="module")
def alone(computes: list[Compute]) -> Results:
    return [finished(work(chosen)) for chosen in computes]


@pytest.mark.profile("ci")
def test_no_two_computes_of_a_back_end_round_alike(computes: list[Compute], alone: Results):
    """In the gradients of the first step, when the weights are still the same."""
    gradients = [numbers[1] for numbers in alone]
    for (one, x), (other, y) in itertools.combinations(zip(computes, gradients, strict=True), 2):
        assert one.backend is not other.backend or not np.array_equal(x, y), f"{one} and {other}"
        np.testing.assert_allclose(x, y, rtol=0, atol=0.03, err_msg=f"{one} and {other}")


@pytest.mark.profile("ci")
def test_by_turns_each_computes_what_it_computes_alone(computes: list[Compute], alone: Results):
    works = [work(chosen) for chosen in computes]
    found: list[Any] = [None] * len(works)
    while any(each is None for each in found):
        for number, each in enumerate(works):
            try:
                next(each)
            except StopIteration as end:
                found[number] = end.value
    expect_same(found, alone)


@pytest.mark.profile("ci")
def test_in_threads_at_once_each_computes_what_it_computes_alone(computes: list[Compute], alone: Results):
    barrier = threading.Barrier(len(computes))

    def begin(chosen: Compute) -> Numbers:
        barrier.wait()
        return finished(work(chosen))

    with ThreadPoolExecutor(len(computes)) as threads:
        for _ in range(3):
            expect_same(list(threads.map(begin, computes)), alone)


@pytest.mark.parametrize("dtype", ["float32", "tf32"])
def test_a_backward_pass_keeps_the_precision_of_its_forward_pass(computes: list[Compute], dtype: str):
    gradients = []
    for elsewhere in ("float32", "tf32"):
        model = GPT(V, OPTIONS, compute=Compute.choose(DEVICE, dtype=dtype))
        loss = model.loss(np.arange(T)[None], np.arange(T)[None])
        with computing_with(Compute.choose(DEVICE, dtype=elsewhere)):
            loss.backward()
        gradients.append(to_host(model.parameters().gradient))
    np.testing.assert_array_equal(*gradients)


@pytest.mark.profile("ci")
@pytest.mark.usefixtures("computes")
def test_runs_by_turns_leave_the_logs_that_they_leave_alone(start: Start, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compute, "get_backend", lambda name: DEVICE if name == "cupy" else get_backend(name))
    settings = [
        {"backend": "numpy", "kernels": "numpy"},
        {"backend": "numpy", "kernels": "reference"},
        {"backend": "cupy", "dtype": "tf32"},
        {"backend": "cupy", "dtype": "bfloat16"},
        {"mode": "scalar"},
    ]
    expected = []
    for number, each in enumerate(settings):
        run = start(f"alone-{number}", **each)
        finish(run)
        expected.append(log(run))
    assert len({str(lines) for lines in expected}) == len(settings)
    runs = [start(f"by-turns-{number}", **each) for number, each in enumerate(settings)]
    for _ in itertools.zip_longest(*map(train, runs)):
        pass
    assert [log(run) for run in runs] == expected
