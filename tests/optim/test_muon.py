"""Muon against a textbook of its eight steps, its groups, its memory, and the schedules that go with it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cuda_on_cpu.device import DeviceArray, no_waiting
from tests.cuda_on_cpu.places import PLACES, needs_compiler, open_place
from tinygrad_chat import GPT, ModelOptions
from tinygrad_chat.backend import Compute
from tinygrad_chat.errors import CheckpointError, ShapeError
from tinygrad_chat.models.nanochat import NANOCHAT
from tinygrad_chat.models.parameter_table import parameter_roles
from tinygrad_chat.nn import Module, Parameters
from tinygrad_chat.optim import AdamW, Group, Muon, Optimizer, adamw_groups
from tinygrad_chat.optim.muon import muon_update
from tinygrad_chat.optim.polar_express import POLAR_EXPRESS, orthogonalize
from tinygrad_chat.optim.schedule import cosine_decay, muon_momentum, nanochat
from tinygrad_chat.tensor import Tensor

RATES = {"lr": 0.02, "embedding_lr": 0.3, "head_lr": 0.008, "scalar_lr": 0.5}
SHAPES = [(5, 5), (4, 12), (12, 4), (1, 6), (6, 1)]


ROLES = {
    "token_embedding.weight": "embedding",
    "head.weight": "head",
    "smear_gate.weight": "smear_gate",
    "blocks.0.attention.query.weight": "matrix",
    "blocks.0.feed_forward.expand.weight": "matrix",
    "blocks.0.feed_forward.contract.weight": "matrix",
    "residual_scales": "residual_scale",
    "smear_scale": "smear_scale",
    "final_norm.gain": "gain",
}


class Parts(Module):
    """A little of everything: an embedding, matrices of three kinds of shape, scales, a gain."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        shapes = [(7, 6), (7, 6), (1, 6), (6, 6), (24, 6), (6, 24), (1,), (1,), (6,)]
        for name, shape in zip(ROLES, shapes, strict=True):
            setattr(self, name, Tensor(random.normal(size=shape)))


def build(dtype: Any = np.float64, **options: Any) -> tuple[Parameters, Muon]:
    parameters = Parameters(dict(Parts().named_parameters()), dtype=dtype, **options)
    groups = adamw_groups(ROLES, **RATES)
    momentum, decay = muon_momentum(steps=1000, warmdown=0.65), cosine_decay(peak=0.2, steps=1000)
    return parameters, Muon(parameters, groups, momentum=momentum, weight_decay=decay)


def train(parameters: Parameters, optimizer: Optimizer, steps: range, rate: float = 0.02) -> None:
    for step in steps:
        gradient = np.random.default_rng(step).normal(size=parameters.size)
        parameters.gradient[:] = parameters.backend.xp.asarray(gradient, parameters.gradient.dtype)
        optimizer.step(rate, position=step)


# One matrix.


def drawn(shape: tuple[int, int]) -> dict[str, Any]:
    random = np.random.default_rng(1)
    square = (shape[0], 1) if shape[0] >= shape[1] else (1, shape[1])
    return {
        "weight": random.normal(size=shape),
        "gradient": random.normal(size=shape),
        "mean": random.normal(size=shape),
        "square": random.uniform(0.01, 0.1, square),
    }


def textbook(
    weight: np.ndarray,
    gradient: np.ndarray,
    mean: np.ndarray,
    square: np.ndarray,
    momentum: float,
    rate: float,
    decay: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The eight steps of docs/upstream_analysis.md, chapter 4, word by word: the new weight, mean and square."""
    norm: Callable[[np.ndarray], float] = lambda x: math.sqrt((x**2).sum())  # noqa: E731
    R, K = weight.shape
    M = mean + (1 - momentum) * (gradient - mean)
    X = gradient + momentum * (M - gradient)
    X = np.array([row * (norm(X) / math.sqrt(R)) / max(norm(row), 1e-6) for row in X])
    X = X / (1.01 * norm(X) + 1e-6)
    for a, b, c in POLAR_EXPRESS:
        A = X.T @ X if R > K else X @ X.T
        B = b * A + c * A @ A
        X = a * X + (X @ B if R > K else B @ X)
    X = X * math.sqrt(min(R, K)) / max(norm(X), 1e-6)
    v = (X**2).mean(axis=1 if R >= K else 0, keepdims=True)
    n = K if R >= K else R
    Q = square + 0.1 * (v - square)
    r = np.maximum(Q, 1e-10) ** -0.5
    X = X * r * norm(X) / max(math.sqrt((v * n * r**2).sum()), 1e-10)
    rate = rate * math.sqrt(max(1, R / K))
    return weight - rate * (X + decay * weight * (X * weight >= 0)), M, Q


def test_the_coefficients_are_those_of_the_analysis():
    page = (Path(__file__).parents[2] / "docs" / "upstream_analysis.md").read_text(encoding="utf-8")
    rows = re.findall(r"^ +\| [1-5] \| (\S+) \| (\S+) \| (\S+) \|$", page, re.MULTILINE)
    assert tuple(tuple(map(float, row)) for row in rows) == POLAR_EXPRESS


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_step_is_that_of_the_textbook(shape):
    arrays = drawn(shape)
    expected = textbook(**arrays, momentum=0.9, rate=0.1, decay=0.3)
    muon_update(**arrays, scalars=(0.9, 0.1, 0.3))
    for name, array in zip(("weight", "mean", "square"), expected, strict=True):
        np.testing.assert_allclose(arrays[name], array, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("size", [1, 1e-9])
def test_rows_of_zeros_and_tiny_numbers_take_the_textbooks_floors(size):
    arrays = drawn((4, 12))
    arrays["gradient"] *= size
    arrays["gradient"][1] = 0
    arrays["gradient"][:, 2] *= 1e-6
    arrays["mean"] *= 0
    arrays["square"] *= 0
    expected = textbook(**arrays, momentum=0.9, rate=0.1, decay=0.3)
    muon_update(**arrays, scalars=(0.9, 0.1, 0.3))
    for name, array in zip(("weight", "mean", "square"), expected, strict=True):
        np.testing.assert_allclose(arrays[name], array, rtol=1e-11, atol=1e-20)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_without_a_gradient_weights_only_decay(shape):
    arrays: dict[str, Any] = drawn(shape) | {"gradient": np.zeros(shape), "mean": np.zeros(shape)}
    before = arrays["weight"].copy()
    muon_update(**arrays, scalars=(0.9, 0.1, 0.3))
    rate = 0.1 * math.sqrt(max(1, shape[0] / shape[1]))
    np.testing.assert_allclose(arrays["weight"], before * (1 - rate * 0.3), rtol=1e-14)
    np.testing.assert_array_equal(arrays["mean"], 0)


@pytest.mark.parametrize("shape", [(32, 32), (32, 96), (96, 32)], ids=str)
def test_unequal_singular_values_become_nearly_equal(shape):
    random = np.random.default_rng(2)
    left, right = (np.linalg.qr(random.normal(size=(size, 32)))[0] for size in shape)
    x = left * np.geomspace(1, 1e-2, 32) @ right.T
    singular = np.linalg.svd(orthogonalize(x.astype(np.float32)), compute_uv=False)
    assert np.linalg.cond(x) > 30
    assert singular.max() < 4 * singular.min()
    assert 0.5 < singular.min() < singular.max() < 1.5


@pytest.mark.parametrize("shape", [(32, 32), (32, 96), (96, 32), (192, 768)], ids=str)
@pytest.mark.parametrize("smallest", [1e-1, 1e-2])
def test_factors_in_bfloat16_bring_singular_values_as_close_to_one(shape: tuple[int, int], smallest: float):
    bfloat16, random, size = np.dtype(pytest.importorskip("ml_dtypes").bfloat16), np.random.default_rng(2), min(shape)
    left, right = (np.linalg.qr(random.normal(size=(length, size)))[0] for length in shape)
    x = (left * np.geomspace(1, smallest, size) @ right.T).astype(np.float32)
    whole, rounded = orthogonalize(x), orthogonalize(x, factors=bfloat16)
    singular = [np.linalg.svd(each, compute_uv=False) for each in (whole, rounded)]
    assert rounded.dtype == np.float32
    assert all(0.85 < each.min() < each.max() < 1.15 for each in singular)
    assert 1e-3 < np.linalg.norm(rounded - whole) / np.linalg.norm(whole) < 0.05


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_what_is_given_is_left_as_it_was_and_keeps_its_type(shape, dtype):
    arrays: dict[str, Any] = {name: array.astype(dtype) for name, array in drawn(shape).items()}
    gradient = arrays["gradient"].copy()
    made = orthogonalize(arrays["gradient"])
    muon_update(**arrays, scalars=(0.9, 0.1, 0.3))
    assert made.dtype == dtype
    np.testing.assert_array_equal(arrays["gradient"], gradient)


def test_float32_is_computed_in_float32():
    """NumPy rounds float64 into a float32 array in place without a word, so every array on the way is looked at."""
    arrays: dict[str, Any] = {name: array.astype(np.float32).view(Watched) for name, array in drawn((12, 4)).items()}
    Watched.seen = set()
    muon_update(**arrays, scalars=(0.9, 0.1, 0.3))
    assert Watched.seen <= {np.dtype(np.float32), np.dtype(bool)}
    assert (arrays["weight"] * np.ones(1)).dtype in Watched.seen  # which would have seen it


class Watched(np.ndarray):
    """An array that tells the types of all that is made from it."""

    seen: set[Any] = set()  # noqa: RUF012

    def __array_finalize__(self, source: Any) -> None:
        self.seen.add(self.dtype)


# Groups.


def test_every_parameter_of_a_gpt_is_in_one_group_or_muons():
    variants: list[dict[str, Any]] = [{}, {"bias": True, "tied": False}, {"norm": "rmsnorm", "positions": "rotary"}]
    for variant in variants:
        options = ModelOptions(layers=2, heads=2, width=8, context=6, **variant)
        parameters, roles = GPT(11, options).parameters(), parameter_roles(options, 11)
        assert roles.keys() == set(parameters)
        named = [name for group in adamw_groups(roles, **RATES) for name in group.parameters]
        assert len(named) == len(set(named))
        muons = roles.keys() - named
        assert muons == {name for name in roles if name.startswith("blocks.") and parameters[name].ndim == 2}


def test_groups_are_nanochats_and_their_rates_multiples_of_muons():
    options = ModelOptions(**NANOCHAT | {"norm_gain": True, "positions": "learned", "qk_norm": None, "layers": 4})
    names = ["value_embeddings.1.weight", "value_embeddings.3.weight"]
    gains = [name for name in parameter_roles(options, 64) if name.endswith(".gain")]
    found = adamw_groups(parameter_roles(options, 64), **RATES)
    expected = [
        Group("head", ("head.weight",), 0.4, (0.8, 0.96), 0.01),
        Group("embedding", ("token_embedding.weight", "position_embedding.weight"), 15, (0.8, 0.995), 0.001),
        Group("value embeddings", tuple(names), 7.5, (0.8, 0.995), 0.01),
        Group("residual scales", ("residual_scales",), 0.25, (0.8, 0.95), 0.05),
        Group("embedding scales", ("embedding_scales",), 25, (0.96, 0.95), 0),
        Group("smear", ("smear_gate.weight", "smear_scale", "backout_scale"), 10, (0.8, 0.95), 0),
        Group("vectors", tuple(gains), 0.25, (0.8, 0.95), 0),
    ]
    assert [(group.name, group.parameters, group.betas, group.weight_decay) for group in found] == [
        (group.name, group.parameters, group.betas, group.weight_decay) for group in expected
    ]
    assert [group.scale for group in found] == pytest.approx([group.scale for group in expected])


def test_groups_that_do_not_fit_the_model_are_refused():
    parameters = Parts().parameters()
    with pytest.raises(ShapeError, match=r"matrices outside the groups, received residual_scales of shape \(1,\)"):
        Muon(parameters, [], momentum=never, weight_decay=never)
    groups = adamw_groups(ROLES | {"gone": "gain"}, **RATES)
    with pytest.raises(ShapeError, match="groups of the model's parameters, received gone"):
        Muon(parameters, groups, momentum=never, weight_decay=never)


# The optimiser.


@pytest.mark.profile("ci")
def test_a_step_is_muons_or_adamws_with_the_groups_numbers_and_the_positions():
    parameters, optimizer = build()
    before = parameters.state()
    train(parameters, optimizer, range(500, 501))
    gradient = np.random.default_rng(500).normal(size=parameters.size)
    pieces = np.split(gradient, np.cumsum([parameters[name].size for name in parameters])[:-1])
    rates = {"token_embedding.weight": (0.3, 0.001), "head.weight": (0.008, 0.01), "smear_gate.weight": (0.2, 0)}
    rates |= {"residual_scales": (0.005, 0.05), "smear_scale": (0.2, 0), "final_norm.gain": (0.005, 0)}
    # The first step, wherever it stands, has the first momentum.
    momentum, decay = muon_momentum(steps=1000, warmdown=0.65)(0), cosine_decay(peak=0.2, steps=1000)(500)
    for name, flat in zip(parameters, pieces, strict=True):
        weight, piece = before[name], flat.reshape(before[name].shape)
        if name in rates:  # the first step of AdamW is the gradient's sign, but for epsilon
            expected = weight * (1 - rates[name][0] * rates[name][1]) - rates[name][0] * np.sign(piece)
        else:
            nothing = 0 * piece[:, :1] if len(piece) >= len(piece[0]) else 0 * piece[:1]
            expected = textbook(weight, piece, 0 * piece, nothing, momentum, 0.02, decay)[0]
        np.testing.assert_allclose(parameters[name].data, expected, rtol=0, atol=1e-7, err_msg=name)


def test_a_group_is_moved_as_adamw_moves_it():
    alone, grouped = Parts().parameters(), Parts().parameters()
    group = Group("all", tuple(grouped), 0.5, (0.7, 0.9), 0.0)
    train(alone, AdamW(alone, betas=(0.7, 0.9), epsilon=1e-3, weight_decay=0.0), range(5), rate=0.01)
    optimizer = Muon(grouped, [group], momentum=never, weight_decay=never, epsilon=1e-3)
    train(grouped, optimizer, range(5), rate=0.02)
    np.testing.assert_allclose(grouped.data, alone.data, rtol=1e-6)


def never(step: int) -> float:
    return math.nan


def test_steps_after_loading_are_the_same_to_the_last_bit():
    whole, optimizer = build()
    train(whole, optimizer, range(6))
    stopped, first = build()
    train(stopped, first, range(2))
    second = Muon(stopped, groups_of(first), momentum=first.momentum, weight_decay=first.weight_decay)
    second.load(first.state())
    train(stopped, second, range(2, 6))
    np.testing.assert_array_equal(whole.data, stopped.data)


def groups_of(optimizer: Muon) -> list[Group]:
    return list(dict.fromkeys(part.group for part in optimizer._parts if part.group is not None))


def test_state_is_a_copy_that_names_parameters_and_an_unfit_one_changes_nothing():
    parameters, optimizer = build(np.float32)
    train(parameters, optimizer, range(2))
    state = optimizer.state()
    assert state["square.blocks.0.feed_forward.expand.weight"].shape == (24, 1)
    assert state["square.blocks.0.feed_forward.contract.weight"].shape == (1, 24)
    assert state.keys() == {f"{kind}.{name}" for kind in ("mean", "square") for name in parameters} | {"steps"}
    train(parameters, optimizer, range(2, 3))
    later = optimizer.state()
    assert not np.array_equal(state["mean.head.weight"], later["mean.head.weight"])
    name = "square.blocks.0.feed_forward.contract.weight"
    for unfit, message in [
        ({}, "is none"),
        (state | {name: state[name].T}, r"contract.weight is \(24, 1\), expected \(1, 24\)"),
        (later | {"steps": np.array([-1])}, "expected steps of at least 0, received -1"),
    ]:
        with pytest.raises(CheckpointError, match=f"optimiser state does not fit: .*{message}"):
            optimizer.load(unfit)
        for each, array in optimizer.state().items():
            np.testing.assert_array_equal(array, later[each])
            assert array.dtype == (np.int64 if each == "steps" else np.float32)


# On a device.


@pytest.fixture(params=PLACES)
def device(request: pytest.FixtureRequest) -> Any:
    with open_place(request.param) as backend:
        yield backend


@pytest.mark.profile("ci")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_steps_on_a_device_are_the_hosts_the_copy_follows_and_nobody_waits(device: Any, dtype: str):
    here, on_host = build(np.float32)
    train(here, on_host, range(3))
    there, optimizer = build(np.float32, compute=Compute.choose(device, dtype=dtype))
    with no_waiting():
        for step in range(3):
            gradient = np.random.default_rng(step).normal(size=there.size).astype(np.float32)
            there.gradient[:] = device.xp.asarray(4 * gradient)
            optimizer.prepare(0.02, position=step)
            optimizer.update(device.xp.asarray(np.float32(0.25)))
    np.testing.assert_allclose(device.to_host(there.data), here.data, rtol=1e-4, atol=1e-5)
    for name, array in on_host.state().items():
        np.testing.assert_allclose(optimizer.state()[name], array, rtol=1e-4, atol=1e-5, err_msg=name)
    assert there.data.dtype == np.float32
    if there.compute_weights is not None:
        np.testing.assert_array_equal(device.to_host(there.compute_weights), device.to_host(there.data).astype(dtype))
    weights, state = there.state(), optimizer.state()
    there.gradient.fill(math.nan)
    with no_waiting():
        optimizer.prepare(0.02, position=3)
        optimizer.update(device.xp.asarray(np.float32("nan")))
    for before, after in ((weights, there.state()), (state, optimizer.state())):
        for name in before.keys() - {"steps"}:
            np.testing.assert_array_equal(after[name], before[name], err_msg=name)


@needs_compiler
def test_products_on_a_device_are_our_own_calls_of_cublas(monkeypatch: pytest.MonkeyPatch):
    """CuPy's own may not be part of a CUDA graph."""
    asked: list[str] = []
    original = DeviceArray.__array_ufunc__

    def watched(self: Any, ufunc: Any, *given: Any, **options: Any) -> Any:
        asked.append(ufunc.__name__)
        return original(self, ufunc, *given, **options)

    monkeypatch.setattr(DeviceArray, "__array_ufunc__", watched)
    with open_place("host") as device:
        for kernels, expected in (("auto", set[str]()), ("reference", {"matmul", "multiply"})):
            asked.clear()
            compute = Compute.choose(device, dtype="float32", kernels=kernels)
            parameters, optimizer = build(np.float32, compute=compute)
            train(parameters, optimizer, range(1))
            assert expected <= set(asked)
            assert expected or not asked


@needs_compiler
@pytest.mark.profile("ci")
def test_steps_with_rounded_factors_on_a_device_are_the_hosts():
    """Both round the same factors, so that they agree as in float32 but for what the order of sums makes of it."""
    with open_place("host") as device:
        found: dict[str, Any] = {}
        for name, factors in {"device": "bfloat16", "host": "bfloat16", "unrounded": None}.items():
            compute = Compute.choose(device, dtype="bfloat16") if name == "device" else None
            parameters, optimizer = build(np.float32, compute=compute)
            optimizer.factors = factors and np.dtype(factors)
            train(parameters, optimizer, range(3))
            found[name] = parameters.state()
    for name in ("blocks.0.attention.query.weight", "blocks.0.feed_forward.expand.weight"):
        error, rounding = (np.abs(found["device"][name] - found[other][name]).max() for other in ("host", "unrounded"))
        assert error < 0.2 * rounding


# Schedules: the table of docs/upstream_analysis.md, chapter 5.


@pytest.mark.parametrize(
    ("steps", "rates", "momenta"),
    [
        (2520, (0.025, 1, 1, 1, 0.0506), (0.85, 0.8617, 0.9697, 0.97, 0.90004)),
        (528, (0.025, 1, 0.4073, 0.4045, 0.0528), (0.85, 0.8617, 0.9697, 0.9261, 0.9002)),
    ],
    ids=["d12", "d4"],
)
def test_schedules_have_the_values_of_the_table(steps, rates, momenta):
    rate = nanochat(peak=1.0, minimum=0.05, warmup=40, steps=steps, warmdown=0.65)
    momentum = muon_momentum(steps=steps, warmdown=0.65)
    at = (0, 39, 399, 400, steps - 1)
    assert [rate(step) for step in at] == pytest.approx(rates, abs=5e-5)
    assert [momentum(step) for step in at] == pytest.approx(momenta, abs=5e-5)


def test_the_ways_down_begin_where_the_table_says():
    for steps, begin in ((2520, 883), (528, 186)):
        rate = nanochat(peak=1.0, minimum=0.05, warmup=40, steps=steps, warmdown=0.65)
        assert rate(begin - 1) == pytest.approx(1)
        assert 0.99 < rate(begin) < 0.9999
        assert rate(steps) == rate(steps + 9) == pytest.approx(0.05)
    momentum = muon_momentum(steps=2520, warmdown=0.65)
    assert momentum(882) == pytest.approx(0.97, abs=1e-12)
    assert 0.9699 < momentum(883) < 0.96999
    assert momentum(2520) == momentum(2600) == pytest.approx(0.90)


def test_rates_scale_with_the_peak_and_short_runs_never_come_to_it():
    rate = nanochat(peak=2.0, minimum=0.1, warmup=40, steps=20, warmdown=0.65)
    assert [rate(step) for step in (0, 19)] == pytest.approx([0.05, 1.0])
    late = nanochat(peak=2.0, minimum=0.1, warmup=0, steps=10, warmdown=0.25)  # 2.5 steps are 2, halves to even
    assert [late(step) for step in (8, 9)] == pytest.approx([2.0, 1.05])


@pytest.mark.parametrize("step", [0, 1, 100, 264, 400, 527, 528])
def test_decay_falls_along_half_a_cosine(step):
    decay = cosine_decay(peak=0.2, steps=528)
    assert decay(step) == pytest.approx(0.2 * (1 + math.cos(math.pi * step / 528)) / 2, abs=1e-15)
    assert decay(600) == 0


def test_without_a_way_down_momentum_and_rate_stay():
    assert muon_momentum(steps=500, warmdown=0.0)(499) == pytest.approx(0.97)
    assert nanochat(peak=1.0, minimum=0.0, warmup=0, steps=5, warmdown=0.0)(4) == 1.0


def test_on_its_way_up_the_momentum_follows_the_steps_that_were_taken_and_the_decay_the_clock():
    seen: list[tuple[str, int]] = []

    def schedule(name: str) -> Callable[[int], float]:
        return lambda step: (seen.append((name, step)), 0.9)[1]

    _, optimizer = build()
    optimizer.momentum, optimizer.weight_decay = schedule("momentum"), schedule("decay")
    for _ in range(2):
        optimizer.step(0.01, position=700)
    optimizer.steps = 400
    optimizer.step(0.01, position=700)
    assert [step for name, step in seen if name == "momentum"] == [0, 1, 700]
    assert {step for name, step in seen if name == "decay"} == {700}
