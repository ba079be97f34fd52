"""The closed formulas against models that are really built, and against what their graphs really multiply."""

from __future__ import annotations

import dataclasses
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_chat.backend import Compute
from tinygrad_chat.errors import NoRoomError
from tinygrad_chat.models import memory
from tinygrad_chat.models.engines import ENGINES
from tinygrad_chat.models.memory import (
    expect_room,
    expect_room_for_step,
    expect_room_to_answer,
    least_memory,
    least_step_memory,
)
from tinygrad_chat.models.nanochat import NANOCHAT, nanochat_shape
from tinygrad_chat.models.options import ModelOptions
from tinygrad_chat.models.size import (
    count_parameters,
    count_scaled_parameters,
    flops_per_token,
)


@st.composite
def any_options(draw: st.DrawFn) -> ModelOptions:
    shared, group = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    head_width = 2 * draw(st.integers(1, 3))
    norm, bias = draw(st.sampled_from(["layernorm", "rmsnorm", "none"])), draw(st.booleans())
    positions = draw(st.sampled_from(["learned", "rotary", "none"]))
    qk_norm = draw(st.sampled_from([None, 1.2])) if positions == "rotary" else None
    return ModelOptions(
        layers=draw(st.integers(0, 3)),
        heads=shared * group,
        key_value_heads=draw(st.sampled_from([None, shared])),
        width=shared * group * head_width,
        head_width=draw(st.sampled_from([None, 2, 6])),
        feed_forward_width=draw(st.sampled_from([None, 1, 7])),
        context=draw(st.integers(1, 9)),
        norm=norm,
        norm_gain=norm == "layernorm" or bias or draw(st.booleans()),
        activation=draw(st.sampled_from(["gelu", "squared_relu", "swiglu"])),
        query_key_value_bias=draw(st.booleans()),
        positions=positions,
        qk_norm=qk_norm,
        qk_gain=qk_norm is not None and draw(st.booleans()),
        tied=draw(st.booleans()),
        bias=bias,
        window=draw(st.sampled_from([None, 2])),
        window_pattern=draw(st.sampled_from([None, "SSL", "s"])),
        embedding_norm=draw(st.booleans()),
        smear=draw(st.booleans()),
        residual_scales=draw(st.booleans()),
        value_embeddings=draw(st.booleans()),
        backout=draw(st.booleans()),
        vocabulary_multiple=draw(st.integers(1, 5)),
        soft_cap=draw(st.sampled_from([None, 5.0])),
    )


@pytest.mark.parametrize("mode", ENGINES)
@given(options=any_options(), vocabulary=st.integers(1, 12))
def test_the_count_is_that_of_the_model_that_is_built(mode, options, vocabulary):
    assert count_parameters(options, vocabulary) == ENGINES[mode](vocabulary, options).parameters().size


@given(options=any_options(), vocabulary=st.integers(1, 12))
def test_flops_are_those_of_every_matrix_once_and_of_attention(options, vocabulary):
    parameters = ENGINES["tensor"](vocabulary, dataclasses.replace(options, tied=False)).parameters()
    matrices = [parameters[key] for key in parameters if parameters[key].ndim == 2 and "embedding" not in key]
    windows = [options.window_of(layer) for layer in range(options.layers)]
    attention = 12 * options.query_width * sum(window - 1 if window else options.context for window in windows)
    assert flops_per_token(options, vocabulary) == 6 * sum(matrix.size for matrix in matrices) + attention


def test_flops_of_nanogpt_124m_are_those_of_its_own_estimate():
    # nanoGPT's estimate_mfu: 6 N + 12 L H Q T, N without the positions but with the tied head.
    options = ModelOptions(layers=12, heads=12, width=768, context=1024, norm="none")
    N = count_parameters(options, 50257) - 1024 * 768
    assert flops_per_token(options, 50257) == 6 * N + 12 * 12 * 12 * 64 * 1024


@pytest.mark.parametrize(
    ("depth", "context", "vocabulary", "counts"),
    [
        (4, 2048, 32768, (36_700_242, 11_534_384, 80_216_496)),
        (12, 2048, 32768, (286_261_730, 110_100_912, 759_696_048)),
        (4, 256, 104, (3_276_882, 3_178_544, 21_037_488)),
    ],
)
def test_nanochats_counts_are_those_that_upstream_prints(depth, context, vocabulary, counts):
    """docs/upstream_analysis.md, chapter 6: all parameters, those that scaling counts, operations a token."""
    options = ModelOptions(**NANOCHAT, **nanochat_shape(depth), context=context)
    found = (count_parameters, count_scaled_parameters, flops_per_token)
    assert tuple(count(options, vocabulary) for count in found) == counts


def test_an_absurd_model_has_a_number_at_once():
    options = ModelOptions(layers=10**9, heads=1, width=10**6, context=10**9)
    assert count_parameters(options, 100) == 12 * 10**21 + 2 * 10**15 + 10**15 + 10**8 + 10**6
    assert flops_per_token(options, 100) == 6 * (12 * 10**21 + 10**8) + 12 * 10**6 * 10**18
    patterned = ModelOptions(layers=10**9, heads=1, width=1, context=8, window=3, window_pattern="SSSL")
    assert flops_per_token(patterned, 1) == 6 * (12 * 10**9 + 1) + 12 * (3 * 2 + 8) * 10**9 // 4


@given(options=any_options(), vocabulary=st.integers(1, 12))
def test_least_memory_is_no_more_than_what_the_arrays_of_a_model_take(options, vocabulary):
    small = least_memory(options, vocabulary, buffers=2) - options.layers * memory.BYTES_A_LAYER
    parameters = ENGINES["tensor"](vocabulary, options).parameters()
    tables = 3 * np.zeros((options.context, options.head_channels // 2)).nbytes
    assert small - parameters.data.nbytes - parameters.gradient.nbytes == (options.positions == "rotary") * tables


def test_a_scalar_model_takes_float64_and_a_value_for_each_number():
    options = ModelOptions()
    scalar, tensor = (least_memory(options, 65, buffers=4, mode=mode) for mode in ("scalar", "tensor"))
    assert scalar - tensor > 804096 * (4 * 4 + 80)


def available(monkeypatch: pytest.MonkeyPatch, amount: int) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: amount)


def test_a_model_that_just_fits_is_let_through_and_one_byte_less_refuses_it(monkeypatch: pytest.MonkeyPatch):
    needed = least_memory(ModelOptions(), 65, buffers=4)
    available(monkeypatch, needed)
    expect_room(ModelOptions(), 65, buffers=4)
    available(monkeypatch, needed - 1)
    with pytest.raises(NoRoomError, match=r"--width 128 --layers 4 --context 64: 804,096 parameters take at least"):
        expect_room(ModelOptions(), 65, buffers=4)


@pytest.mark.parametrize(
    "options",
    [
        ModelOptions(width=10**9, heads=1),
        ModelOptions(layers=10**9, width=1, heads=1),
        ModelOptions(context=10**12),
        ModelOptions(context=10**12, positions="rotary"),
    ],
)
def test_whatever_is_absurd_is_refused(options):
    with pytest.raises(NoRoomError, match=r"choose a smaller --width, --layers or --context"):
        expect_room(options, 65, buffers=2)


SHAPES = {
    "mini-gpt": {},
    "rotary": {"positions": "rotary", "norm": "rmsnorm", "bias": False},
    "wide feed-forward": {"feed_forward_width": 512, "activation": "squared_relu"},
    "shared keys": {"key_value_heads": 1},
    "bigram": {"layers": 0, "positions": "none", "norm": "none", "tied": False},
    "nanochat": NANOCHAT | nanochat_shape(2) | {"width": 64, "heads": 2, "head_width": 32, "context": 32},
}


@pytest.mark.profile("ci")
@pytest.mark.parametrize("kernels", ["numba", "numpy", "reference"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_step_holds_at_least_what_its_formula_says_and_not_many_times_as_much(shape: dict, kernels: str):
    if kernels == "numba":
        pytest.importorskip("numba")
    options = ModelOptions(**{"layers": 2, "width": 64, "context": 32, **shape})
    model = ENGINES["tensor"](65, options, compute=Compute.choose("numpy", kernels))
    model.parameters()
    batch = np.random.default_rng(0).integers(0, 65, (2, 96, options.context))
    model.loss(*batch[:, :1]).backward()  # compiles, and fills what is filled once
    tracemalloc.start()
    model.loss(*batch).backward()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    least = least_step_memory(options, 65, tokens=batch[0].size)
    assert peak / 4 < least < peak + batch.nbytes


@pytest.mark.profile("ci")
def test_a_scalar_step_holds_at_least_what_its_formula_says():
    options = ModelOptions(layers=1, heads=2, width=16, context=8)
    model = ENGINES["scalar"](20, options)
    batch = np.random.default_rng(0).integers(0, 20, (2, 2, 8))
    tracemalloc.start()
    model.loss(*batch).backward()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak / 16 < least_step_memory(options, 20, tokens=16, mode="scalar") < peak


def test_a_batch_that_cannot_fit_is_refused_and_one_row_less_is_not():
    options = ModelOptions()
    room = least_memory(options, 65, buffers=4) + least_step_memory(options, 65, tokens=100 * options.context)
    expect_room_for_step(options, 65, rows=100, buffers=4, available=room)
    with pytest.raises(
        NoRoomError, match=r"^--batch-size: a step of 101 windows of --context 64 at once takes at leas"
    ):
        expect_room_for_step(options, 65, rows=101, buffers=4, available=room)
    with pytest.raises(NoRoomError, match=r"parameters take at least"):  # no batch is to blame
        expect_room_for_step(options, 65, rows=1, buffers=4, available=1000)


def test_a_model_that_is_too_large_to_answer_is_told_how_it_would_fit():
    options = ModelOptions()  # 804,096 parameters
    for available, weights, remedy in (
        (2_000_000, "float32", "--weights float16 would fit"),
        (1_000_000, "float16", "--weights int8 would fit"),
        (700_000, "int8", "this model is too large for this machine"),
    ):
        message = (
            rf"^804,096 parameters take at least 0.0 GiB as {weights}, and only 0.0 GiB are available here; {remedy}$"
        )
        with pytest.raises(NoRoomError, match=message):
            expect_room_to_answer(options, 65, weights=weights, available=available)
    expect_room_to_answer(options, 65, weights="int8", available=1_000_000)
