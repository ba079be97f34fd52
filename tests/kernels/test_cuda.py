"""The CUDA kernels against the ops they replace: their own source, run by the host (tests/cuda_on_cpu) or by a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.catalogue import CATALOGUE, Case, Entry, document_starts
from tests.cuda_on_cpu.places import PLACES, open_place
from tests.layouts import Layout, in_any_order, lay_out_case
from tests.test_catalogue import as_float32, draw_d_out, value_and_gradients
from tests.test_sizes import cases_of, outcome
from tinygrad_chat import Tensor, ops
from tinygrad_chat.autograd import reference_ops
from tinygrad_chat.backend import Backend, get_backend, load_kernels
from tinygrad_chat.errors import ShapeError
from tinygrad_chat.kernels.cuda import attention, cross_entropy
from tinygrad_chat.optim.adamw import adamw_update
from tinygrad_chat.optim.clipping import norm_and_scale


@pytest.fixture(scope="module", params=PLACES)
def device(request: pytest.FixtureRequest) -> Iterator[Backend]:
    with open_place(request.param) as backend:
        yield backend


def moved(device: Backend, x: Any, real: Any, shift: int = 0) -> Any:
    """Return an array on the device, of type `real` where it held floats, `shift` elements into memory of its own; or
    a tuple of them."""
    if isinstance(x, tuple):
        return tuple(moved(device, part, real, shift) for part in x)
    if not isinstance(x, (np.ndarray, np.generic)):
        return x
    values = device.xp.asarray(x).astype(real if x.dtype.kind == "f" else x.dtype)
    place = device.xp.empty(shift + values.size, values.dtype)[shift:].reshape(values.shape)
    place[...] = values
    return place


# float32 rounds to 6e-8, bfloat16 to 4e-3; the second is what an op's result and what it keeps are rounded to.
TOLERANCE = {"float32": 2e-5, "bfloat16": 3e-2}
TYPES = list(TOLERANCE)


def compare(
    device: Backend, entry: Entry, case: Case, real: str, shift: int = 0, layouts: list[Layout] | None = None
) -> None:
    """Check value and gradients on the device against the reference on the host, from the same rounded numbers."""

    def rounded(x: Any) -> Any:
        return x.astype(real).astype(np.float32) if getattr(x, "dtype", None) == np.float32 else x

    case = as_float32(case)
    activations = {name: rounded(x) for name, x in case.options.items() if name == "before"}  # other arrays are float32
    case = Case(tuple(map(rounded, case.inputs)), case.options | activations)
    if entry.op.name.startswith("add_"):  # a sum that has to be rounded may be magnified by the norm without limit
        x, branch, *vectors = case.inputs
        coarse = (np.clip(np.round(16 * part) / 16, -3, 3) for part in (x, branch))
        case = Case((*coarse, *vectors), case.options)
    d_out = rounded(np.asarray(draw_d_out(entry, case)).astype(np.float32))
    with reference_ops():
        expected = value_and_gradients(entry, case, d_out)
    there = Case(
        tuple(moved(device, x, real, shift) for x in case.inputs),
        {name: moved(device, x, real if name in activations else np.float32) for name, x in case.options.items()},
    )
    there_d_out = moved(device, d_out, real)
    if layouts:
        there = lay_out_case(there, layouts, device)
        there_d_out = layouts[-1].lay_out(there_d_out, device)
    found = value_and_gradients(entry, there, there_d_out)
    for mine, reference in zip(found, expected, strict=True):
        mine = device.to_host(mine).astype(np.float32)
        scale = max(1.0, float(np.max(np.abs(reference), initial=0.0)))
        np.testing.assert_allclose(mine, reference, rtol=0, atol=TOLERANCE[real] * scale)


KERNELS = [entry for entry in CATALOGUE.values() if entry.op in load_kernels("cuda")]


@pytest.mark.profile("ci")
@pytest.mark.parametrize("real", TYPES)
@pytest.mark.parametrize("entry", KERNELS, ids=lambda entry: entry.op.name)
@given(st.data())
def test_a_kernel_agrees_with_its_op(device: Backend, entry: Entry, real: str, data: st.DataObject):
    compare(device, entry, data.draw(entry.cases), real)


@pytest.mark.parametrize("name", [name for name, entry in CATALOGUE.items() if entry not in KERNELS])
@given(st.data())
def test_an_op_without_a_kernel_computes_in_bfloat16_too(device: Backend, name: str, data: st.DataObject):
    """CuPy can do less with it than NumPy."""
    entry = CATALOGUE[name]
    case = as_float32(data.draw(entry.cases))
    d_out = np.asarray(draw_d_out(entry, case)).astype(np.float32)
    there = Case(tuple(moved(device, x, "bfloat16") for x in case.inputs), case.options)
    for found, expected in zip(
        value_and_gradients(entry, there, moved(device, d_out, "bfloat16")),
        value_and_gradients(entry, case, d_out),
        strict=True,
    ):
        assert found.shape == expected.shape


@pytest.mark.parametrize("real", TYPES)
@pytest.mark.parametrize("entry", KERNELS, ids=lambda entry: entry.op.name)
@given(st.data())
def test_a_kernel_takes_arrays_as_they_lie(device: Backend, entry: Entry, real: str, data: st.DataObject):
    layouts = data.draw(st.lists(in_any_order, min_size=1, max_size=4))
    compare(device, entry, data.draw(entry.cases), real, layouts=layouts)


@pytest.mark.profile("ci")
@pytest.mark.parametrize("entry", KERNELS, ids=lambda entry: entry.op.name)
def test_a_kernel_does_at_every_size_what_its_op_does(device: Backend, entry: Entry):
    name = entry.op.name
    for case in cases_of(name):
        with reference_ops():
            refused = outcome(name, case) is None
        if not refused:
            compare(device, entry, case, "float32")
            continue
        if name == "embedding":  # a token that the table lacks has a row of NaNs there
            continue
        there = [moved(device, x, np.float32) for x in case.inputs]
        options = {name: moved(device, x, np.float32) for name, x in case.options.items()}
        with pytest.raises(ShapeError):
            entry.op(*(x if x.dtype.kind == "i" else Tensor(x) for x in there), **options)


random = np.random.default_rng(0)


def drawn(*shape: int, offset: float = 0.0) -> np.ndarray:
    return (offset + random.normal(size=shape)).astype(np.float32)


def attention_case(B: int, T: int, S: int, G: int, shared: int, D: int, **options: Any) -> tuple[str, Case]:
    inputs = drawn(B, T, G * shared * D), drawn(B, S, G * D), drawn(B, S, G * D)
    return "attention", Case(inputs, {"heads": G * shared, **options})


def loss_case(N: int, V: int, targets: Any = None, **options: Any) -> tuple[str, Case]:
    targets = random.integers(0, V, N) if targets is None else np.broadcast_to(targets, N)
    return "cross_entropy", Case((3 * drawn(N, V), np.asarray(targets)), options)


def sum_case(shape: tuple[int, ...], scales: int, both: bool = True, **options: Any) -> tuple[str, Case]:
    return "scaled_sum", Case((drawn(*shape), drawn(*shape), *drawn(1 + both, scales)), options)


def gate_case(rows: int, G: int, D: int, **options: Any) -> tuple[str, Case]:
    return "gated_sum", Case((drawn(rows, G * D), drawn(rows, G * D), 2 * drawn(rows, G)), {"reach": 3.0, **options})


def smear_case(B: int, T: int, C: int, K: int, before: bool = False) -> tuple[str, Case]:
    inputs = drawn(B, T, C), drawn(1, K) / max(K, 1) ** 0.5, drawn(1, offset=1)
    return "smear", Case(inputs, {"before": drawn(B, 1, C) if before else None})


angles, whole_angles = ops.rotary_angles(9, 24), ops.rotary_angles(45, 32)  # of heads of 24, and of whole vectors
# Where kernels go wrong: more than a warp, a block or a chunk of something, rows that are not whole vectors, nothing
# at all, a mask that hides everything, numbers far from 0.
CORNERS: dict[str, tuple[str, Case]] = {
    "rows of more than a warp": ("layernorm", Case((drawn(9, 300), drawn(300), drawn(300)))),
    "odd rows": ("layernorm", Case((drawn(3, 37), drawn(37)))),
    "rows far from 0": ("layernorm", Case((drawn(5, 64, offset=30), drawn(64), drawn(64)))),
    "more rows than chunks": ("layernorm", Case((drawn(5000, 8), drawn(8), drawn(8)))),
    "a sum and its norm, in vectors": ("add_layernorm", Case((drawn(20, 264), drawn(20, 264), drawn(264), drawn(264)))),
    "a sum and its norm, odd rows": ("add_rmsnorm", Case((drawn(20, 37), drawn(20, 37), drawn(37)))),
    "rows that just fit in registers": ("layernorm", Case((drawn(21, 1024), drawn(1024), drawn(1024)))),
    "rows too long for registers": ("add_layernorm", Case((*drawn(2, 4, 1032), drawn(1032), drawn(1032)))),
    "no rows": ("layernorm", Case((drawn(0, 8), drawn(8), drawn(8)))),
    "rmsnorm without gain": ("rmsnorm", Case((drawn(17, 264),))),
    "gelu beyond a block": ("gelu", Case((3 * drawn(5, 1031),))),
    "gelu far out": ("gelu", Case((np.array([-1e12, -60, -10, 0, 10, 60, 1e12], np.float32),))),
    "relu beyond a block": ("relu", Case((drawn(5, 1031),))),
    "relu at 0": ("squared_relu", Case((np.array([-1, -0.0, 0, 1], np.float32),))),
    "squared relu in vectors": ("squared_relu", Case((drawn(64, 64),))),
    "swiglu beyond a block": ("swiglu", Case((3 * drawn(5, 1031), drawn(5, 1031)))),
    "swiglu in vectors": ("swiglu", Case((drawn(64, 64), drawn(64, 64)))),
    "swiglu far out": ("swiglu", Case((np.array([-1e12, -60, 0, 60, 1e12], np.float32), drawn(5)))),
    "add over two leading axes": ("add", Case((drawn(3, 5, 16), drawn(16)))),
    "add over odd rows": ("add", Case((drawn(300, 7), drawn(7)))),
    "a wide linear layer": ("linear", Case((drawn(2, 33, 40), drawn(24, 40), drawn(24)))),
    "a linear layer of no rows": ("linear", Case((drawn(0, 8), drawn(3, 8), drawn(3)))),
    "rotary of many heads": ("rotary", Case((drawn(3, 9, 120),), {"cosine": angles[0], "sine": angles[1]})),
    "rotary with a norm": (
        "rotary",
        Case((drawn(2, 9, 48),), {"cosine": angles[0], "sine": angles[1], "rms": 1.2}),
    ),
    "rotary with a norm and a gain": (
        "rotary",
        Case((drawn(5, 9, 48), drawn(24)), {"cosine": angles[0], "sine": angles[1], "rms": 1.2}),
    ),
    "rotary in vectors, of many heads": (
        "rotary",
        Case((drawn(3, 45, 256), drawn(32)), {"cosine": whole_angles[0], "sine": whole_angles[1], "rms": 1.2}),
    ),
    "rotary with a gain": ("rotary", Case((drawn(2, 9, 24), drawn(24)), {"cosine": angles[0], "sine": angles[1]})),
    "an embedding seen everywhere": ("embedding", Case((drawn(3, 8), np.repeat([2, 0, 2], [40, 70, 200])))),
    "an embedding in whole chunks": ("embedding", Case((drawn(4, 8), np.repeat([0, 1, 3], [32, 64, 32])))),
    "an embedding seen often": ("embedding", Case((drawn(5, 24), random.integers(0, 5, (4, 100))))),
    "an embedding of odd rows": ("embedding", Case((drawn(300, 9), random.integers(-300, 300, 50)))),
    "no tokens": ("embedding", Case((drawn(3, 8), np.zeros((2, 0), np.int64)))),
    "attention over more than a warp": attention_case(2, 70, 70, 2, 1, 8),
    "attention in whole vectors": attention_case(2, 72, 72, 2, 1, 8),
    "attention in whole vectors and a window": attention_case(1, 40, 80, 1, 2, 8, window=13),
    "attention after a cache": attention_case(1, 3, 50, 3, 2, 4),
    "flash decoding of one chunk": attention_case(3, 1, 40, 2, 2, 8),
    "flash decoding of several chunks": attention_case(2, 1, 300, 2, 2, 16),
    "flash decoding in a window of few chunks": attention_case(1, 1, 700, 1, 2, 24, window=270),
    "flash decoding, odd and wider than a block": attention_case(1, 1, 130, 1, 1, 201),
    "flash decoding in a document": attention_case(3, 1, 300, 2, 1, 8, document_starts=np.array([[299], [128], [5]])),
    "flash decoding in a cache with room": attention_case(2, 1, 400, 1, 2, 8, length=np.array(140)),
    "attention in a cache with room": attention_case(1, 7, 40, 1, 2, 8, window=12, length=np.array(30)),
    "attention in a window": attention_case(2, 45, 45, 2, 1, 16, window=7),
    "attention within documents": attention_case(
        3, 45, 45, 2, 2, 8, document_starts=document_starts(random, 3, 45, 45)
    ),
    "attention within documents, in whole vectors": attention_case(
        2, 72, 80, 2, 1, 8, window=33, document_starts=document_starts(random, 2, 72, 80)
    ),
    "attention that sees all": attention_case(2, 20, 33, 1, 4, 8, causal=False),
    "attention of many sequences": attention_case(9, 12, 12, 2, 1, 4),
    "attention of no sequence": attention_case(0, 4, 4, 2, 1, 4),
    "a large vocabulary": loss_case(7, 1000),
    "a vocabulary of odd size, capped": loss_case(5, 333, soft_cap=15.0),
    "a vocabulary of several vectors a thread": loss_case(3, 6152, soft_cap=15.0),
    "odd rows that just fit in registers": loss_case(2, 6655),
    "odd rows too long for registers": loss_case(2, 6657),
    "many rows": loss_case(600, 3, token_count=2400),
    "rows of different weights": loss_case(40, 12, weights=drawn(40), token_count=60),
    "no target that counts": loss_case(6, 12, targets=-1),
    "some targets that count": loss_case(6, 12, targets=[-1, 3, -1, 0, 11, -1]),
    "logits far from 0": ("cross_entropy", Case((drawn(4, 50, offset=100), random.integers(0, 50, 4)))),
    "logits far from 0, capped": (
        "cross_entropy",
        Case((drawn(4, 50, offset=200), random.integers(0, 50, 4)), {"soft_cap": 5.0}),
    ),
    "logits of minus infinity": (
        "cross_entropy",
        Case(
            (np.where(np.arange(48) % 3 == 1, -np.inf, drawn(4, 48)).astype(np.float32), 3 * random.integers(0, 16, 4))
        ),
    ),
    "a scaled sum, in vectors": sum_case((5, 9, 48), 1),
    "a scaled sum of odd size, one of many layers": sum_case((3, 211), 5, layer=2, subtract=True),
    "a scaled sum beyond what all blocks take at once": sum_case((300_007,), 3, layer=2),
    "a scaled sum beyond that, in vectors": sum_case((700, 3008), 3, both=False, layer=1),
    "a scaled sum in more layers than threads": sum_case((2, 6), 300, layer=299),
    "a scaled sum less, of x as it is": sum_case((4, 7, 24), 3, both=False, layer=1, subtract=True),
    "a scaled sum of nothing": sum_case((0, 8), 2, layer=1),
    "gates of odd heads": gate_case(7, 3, 11),
    "gates of heads of more than a warp": gate_case(5, 2, 37, reach=1),
    "gates of heads of more than a warp, in vectors": gate_case(5, 3, 272),
    "more gates than a block": gate_case(67, 4, 8),
    "no gates": gate_case(0, 2, 8),
    "gates wide open and shut": (
        "gated_sum",
        Case((*drawn(2, 3, 16), np.array([[-100, 100], [-1e30, 1e30], [0, -30]], np.float32)), {"reach": 3.0}),
    ),
    "a smear of odd rows": smear_case(3, 5, 37, 12),
    "a smear of odd rows that goes on": smear_case(3, 5, 37, 12, before=True),
    "a smear in vectors": smear_case(2, 20, 264, 24),
    "a smear in vectors that goes on": smear_case(2, 20, 264, 40, before=True),
    "a smear of one position": smear_case(5, 1, 16, 6),
    "a smear of one position that goes on": smear_case(5, 1, 16, 6, before=True),
    "a smear that reads every channel": smear_case(2, 3, 300, 300, before=True),
    "a smear of more rows than chunks": smear_case(3, 1700, 8, 5),
    "a smear of no sequence": smear_case(0, 4, 8, 3),
    "a smear of no position": smear_case(2, 0, 8, 3),
    "dropout beyond a block": ("dropout", Case((drawn(7, 600),), {"rate": 0.3, "seed": 5, "offset": 1000})),
    "products with three leading axes": ("matmul", Case((drawn(2, 1, 3, 5, 4), drawn(3, 1, 4, 6)))),
    "a product for each of a batch": ("matmul", Case((drawn(3, 2, 40, 9), drawn(9, 33)))),
}


@pytest.mark.profile("ci")
@pytest.mark.parametrize("shift", [0, 1], ids=["aligned", "not aligned"])
@pytest.mark.parametrize("real", TYPES)
@pytest.mark.parametrize("corner", CORNERS)
def test_a_kernel_agrees_with_its_op_in_the_corners(device: Backend, corner: str, real: str, shift: int):
    name, case = CORNERS[corner]
    compare(device, CATALOGUE[name], case, real, shift)


@pytest.mark.profile("ci")
@pytest.mark.parametrize("real", TYPES)
@pytest.mark.parametrize("corner", [corner for corner, (name, _) in CORNERS.items() if name == "cross_entropy"])
def test_rows_too_long_for_registers_have_the_same_loss_and_gradient(
    device: Backend, corner: str, real: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cross_entropy, "PIECES", 0)
    compare(device, CATALOGUE["cross_entropy"], CORNERS[corner][1], real)


def test_what_changes_from_step_to_step_is_read_from_the_devices_memory(device: Backend):
    """So that a step captured once reads new numbers: here, between the forward and the backward pass."""
    xp, x, targets = device.xp, np.ones((3, 40), np.float32), np.arange(3)
    seed, offset, count = (xp.asarray(np.array(number)) for number in (1, 0, 3))
    kernels = load_kernels("cuda")
    out, backward = kernels[ops.dropout](xp.asarray(x), rate=0.5, seed=seed, offset=offset)
    seed[...], offset[...] = 2, 7
    for found, numbers in ((out, {"seed": 1}), (backward(xp.asarray(x))[0], {"seed": 2, "offset": 7})):
        np.testing.assert_array_equal(device.to_host(found), ops.dropout(x, rate=0.5, **numbers))
    for tokens in (3, 5):
        count[...] = tokens
        losses = kernels[ops.cross_entropy](xp.asarray(x), xp.asarray(targets), token_count=count)[0]
        np.testing.assert_allclose(float(losses), 3 * np.log(40) / tokens, rtol=1e-6)


@pytest.mark.parametrize("real", TYPES)
@pytest.mark.parametrize("options", [{}, {"rms": 1.2}], ids=["", "with a norm"])
@pytest.mark.parametrize(("heads", "D"), [(3, 16), (5, 64), (3, 128), (1, 768), (1, 48)])
def test_rotary_leaves_the_same_bits_in_vectors_and_pair_by_pair(
    device: Backend, heads: int, D: int, options: dict[str, Any], real: str
):
    x, gain, d_out, (cosine, sine) = drawn(2, 7, heads * D), drawn(D), drawn(2, 7, heads * D), ops.rotary_angles(7, D)
    angles = {"cosine": moved(device, cosine, np.float32), "sine": moved(device, sine, np.float32)}
    found = []
    for shift in (0, 1):  # arrays that are aligned for vectors, and that are not
        there = [moved(device, part, real, shift) for part in (x, gain, d_out)]
        out, backward = load_kernels("cuda")[ops.rotary](*there[:2], **angles, **options)
        d_x, d_gain = backward(there[2])
        found.append([device.to_host(each) for each in (out, d_x, d_gain.array())])
    for wide, narrow in zip(*found, strict=True):
        np.testing.assert_array_equal(wide, narrow)


@pytest.mark.parametrize("offset", [8, -8])
def test_attention_takes_the_largest_score_out(device: Backend, offset: float):
    """So that scores of some 100, or minus 100, leave weights that are numbers."""
    query, key, value = offset + drawn(1, 40, 8), 8 + drawn(1, 40, 8), drawn(1, 40, 8)
    there = (Tensor(moved(device, x, np.float32)) for x in (query, key, value))
    with reference_ops():
        expected = ops.attention(Tensor(query), key, value, heads=2).data
    np.testing.assert_allclose(device.to_host(ops.attention(*there, heads=2).data), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("T", "sequences"), [(64, [8, 1]), (256, [1] * 9)], ids=["several", "at least one"])
def test_attention_computes_as_many_scores_at_a_time_as_fit_in_half_of_the_cache(
    device: Backend, T: int, sequences: list[int], monkeypatch: pytest.MonkeyPatch
):
    if device.name == "cupy":
        pytest.skip("the cache of the stand-in holds 1 MiB")
    shapes, launch = [], attention.launch
    monkeypatch.setattr(attention, "launch", lambda *given: shapes.append(given[4].shape) or launch(*given))
    ops.attention(*(Tensor(moved(device, drawn(9, T, 4), np.float32)) for _ in range(3)), heads=4)
    assert shapes == [(count, 1, 4, T, T) for count in sequences]


def test_a_gradient_that_lies_in_another_order_takes_one_that_is_pending(device: Backend):
    """The first gradient of a leaf comes through a transposition, the second is added to it."""
    weight, x = drawn(6, 8), drawn(5, 8)
    leaves = []
    for place in (device, get_backend("numpy")):
        leaf, there = Tensor(moved(place, weight, np.float32)), moved(place, x, np.float32)
        loss = ops.linear(there, leaf).sum() + (there @ leaf.transpose(1, 0)).sum()  # the younger one's comes first
        loss.backward()
        leaves.append(leaf.grad)
    np.testing.assert_allclose(device.to_host(leaves[0]), leaves[1], rtol=1e-4, atol=1e-4)


def test_operands_with_gaps_are_read_as_they_are(device: Backend):
    """Of rows and of columns: a slice of every second channel."""
    on_host = [drawn(2, 6, 16), drawn(2, 6, 16), drawn(2, 6, 8), drawn(5, 16), drawn(16), drawn(8, 8)]
    results = []
    for place in (device, get_backend("numpy")):
        query, key, value, weight, gain, table = (moved(place, x, np.float32) for x in on_host)
        results.append(
            [
                ops.attention(Tensor(query[:, :, ::2]), Tensor(key[:, :, ::2]), Tensor(value), heads=2),
                ops.linear(Tensor(value), Tensor(weight[:, ::2])),
                ops.rmsnorm(Tensor(value), Tensor(gain[::2])),
                ops.embedding(Tensor(table.T), place.xp.asarray(np.array([1, 7, 1]))),
            ]
        )
    for found, expected in zip(*results, strict=True):
        np.testing.assert_allclose(device.to_host(found.data), expected.data, rtol=1e-4, atol=1e-5)


def test_arrays_of_several_types_run_the_op(device: Backend):
    x, gain = moved(device, drawn(3, 8), np.float32), moved(device, drawn(8).astype(np.float64), np.float64)
    with reference_ops():
        expected = ops.rmsnorm(Tensor(x), gain).data
    np.testing.assert_array_equal(device.to_host(ops.rmsnorm(Tensor(x), gain).data), device.to_host(expected))


def test_numbers_that_are_whole_are_numbers_too(device: Backend):
    logits, targets = moved(device, drawn(3, 9), np.float32), device.xp.asarray(np.array([1, 2, 3]))
    losses = [ops.cross_entropy(Tensor(logits), targets, soft_cap=cap).item() for cap in (15, 15.0)]
    assert losses[0] == losses[1]


def test_targets_and_tokens_that_are_no_whole_numbers_are_refused(device: Backend):
    table, tokens = Tensor(moved(device, drawn(3, 9), np.float32)), moved(device, np.ones(3), np.float32)
    with pytest.raises(ShapeError, match="expected whole numbers as targets, received float32"):
        ops.cross_entropy(table, tokens)
    with pytest.raises(ShapeError, match="expected whole numbers as tokens, received float32"):
        ops.embedding(table, tokens)


def test_gelu_of_the_largest_numbers_has_a_slope(device: Backend):
    x = Tensor(moved(device, np.array([-1e30, 1e30], np.float32), np.float32))
    out = ops.gelu(x)
    out.backward(device.xp.ones(2, np.float32))
    np.testing.assert_array_equal(device.to_host(out.data), np.array([0, 1e30], np.float32))
    np.testing.assert_allclose(device.to_host(x.grad), [0, 1], atol=1e-6)


def test_a_new_stream_has_the_workspace_too(device: Backend, monkeypatch: pytest.MonkeyPatch):
    if device.name == "cupy":
        with device.xp.cuda.Stream():
            ops.linear(*(Tensor(moved(device, drawn(4, 4), np.float32)) for _ in range(2)))
        device.synchronize()
        return
    x, weight = (Tensor(moved(device, drawn(4, 4), np.float32)) for _ in range(2))
    monkeypatch.setattr(device.xp.cuda, "get_current_stream", lambda: SimpleNamespace(ptr=7))
    ops.linear(x, weight)


@pytest.mark.parametrize("factor", [1, -0.5])
@pytest.mark.parametrize("real", TYPES)
def test_overwritten_logits_hold_their_gradient(device: Backend, real: str, factor: float):
    logits, targets = moved(device, drawn(5, 40), real), moved(device, random.integers(0, 40, 5), real)
    kept, given = Tensor(logits.copy()), Tensor(logits)
    before, d_out = device.to_host(kept.data).copy(), device.xp.asarray(np.float32(factor))
    ops.cross_entropy(kept, targets).backward(d_out)
    ops.cross_entropy(given, targets, overwrite=True).backward(d_out)
    np.testing.assert_array_equal(device.to_host(kept.data), before)
    np.testing.assert_array_equal(device.to_host(given.grad), device.to_host(kept.grad))
    np.testing.assert_array_equal(device.to_host(logits), device.to_host(kept.grad))


def test_a_rule_of_the_loss_that_is_asked_twice_says_the_same(device: Backend, monkeypatch: pytest.MonkeyPatch):
    """Also where there are more logits than all threads scale at once."""
    monkeypatch.setattr(cross_entropy, "MAX_CHUNKS", 1)
    logits, targets = moved(device, drawn(5, 1000), np.float32), device.xp.asarray(random.integers(0, 1000, 5))
    _, rule = load_kernels("cuda")[ops.cross_entropy](logits, targets)
    once, again, half = (device.to_host(rule(device.xp.asarray(np.float32(d)))[0]) for d in (3, 3, 1.5))
    assert np.isfinite(once).all()
    np.testing.assert_array_equal(once, again)
    np.testing.assert_array_equal(once, 2 * half)


def test_a_token_or_target_that_cannot_be_gives_no_number(device: Backend):
    table, tokens = Tensor(moved(device, drawn(5, 8), np.float32)), device.xp.asarray(np.array([1, 7, -6, 4]))
    rows = device.to_host(ops.embedding(table, tokens).data)
    np.testing.assert_array_equal(np.isnan(rows).all(axis=1), [False, True, True, False])
    logits = Tensor(moved(device, drawn(2, 5), np.float32))
    for target in (5, -3):
        assert np.isnan(ops.cross_entropy(logits, device.xp.asarray(np.array([1, target]))).item())
    nothing = np.full((2, 5), np.nan, np.float32)
    nothing[1] = 0
    assert np.isnan(ops.cross_entropy(Tensor(moved(device, nothing, np.float32)), device.xp.asarray([1, 1])).item())


@pytest.mark.parametrize(("vocabulary", "size"), [(1, 1), (256, 1), (257, 2), (65536, 2), (65537, 4)])
def test_tokens_are_sorted_by_keys_as_short_as_the_vocabulary_allows(
    device: Backend, vocabulary: int, size: int, monkeypatch: pytest.MonkeyPatch
):
    keys, sort = [], device.xp.argsort
    monkeypatch.setattr(device.xp, "argsort", lambda x, **options: keys.append(x) or sort(x, **options), raising=False)
    table = Tensor(moved(device, drawn(vocabulary, 1), np.float32))
    ops.embedding(table, device.xp.asarray(np.array([-1, 0, 0, vocabulary - 1]))).sum().backward()
    assert [key.dtype for key in keys] == [np.dtype(f"u{size}")]
    counts = np.bincount([vocabulary - 1, 0, 0, vocabulary - 1], minlength=vocabulary)
    np.testing.assert_array_equal(device.to_host(table.grad)[:, 0], counts)


@pytest.mark.parametrize("real", [None, "bfloat16"])
def test_adamw_agrees_with_its_reference_and_the_copy_follows(device: Backend, real: str | None):
    size = 1003 if real is None else 1008  # vectors that are not whole, and that are
    scalars = (0.9, 0.01, 1 - 0.8, 1 - 0.95, 2.0, 1e-8)
    arrays = [drawn(size), drawn(size), drawn(size), np.abs(drawn(size))]
    there = [moved(device, x, np.float32) for x in arrays]
    copy = None if real is None else device.xp.empty(size, real)
    load_kernels("cuda")[adamw_update](
        *there, moved(device, np.array(scalars), np.float32), compute_weights=copy, decayed=700
    )
    adamw_update(*arrays, scalars=scalars, decayed=700)
    for mine, reference in zip(there, arrays, strict=True):
        np.testing.assert_allclose(device.to_host(mine), reference, rtol=1e-5, atol=1e-6)
    there[0][:4] = device.xp.asarray(np.array([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 1 + 2**-7], np.float32))  # halves
    still = moved(device, np.array((1.0, 0.0, 1 - 0.8, 1 - 0.95, 2.0, 1e-8)), np.float32)
    load_kernels("cuda")[adamw_update](*there, scalars=still, compute_weights=copy, decayed=0)
    if copy is not None:
        np.testing.assert_array_equal(device.to_host(copy), device.to_host(there[0]).astype(real))


@pytest.mark.parametrize("size", [1003, 1008])
def test_adamw_scales_the_gradient_in_its_own_pass(device: Backend, size: int):
    arrays = [drawn(size), drawn(size), drawn(size), np.abs(drawn(size))]
    results = []
    for factor, scale in ((0.25, None), (1, 0.25)):
        there = [moved(device, x, np.float32) for x in arrays]
        there[1] *= factor
        before = device.to_host(there[1]).copy()
        load_kernels("cuda")[adamw_update](
            *there,
            scalars=moved(device, np.array((0.9, 0.01, 1 - 0.8, 1 - 0.95, 2.0, 1e-8)), np.float32),
            grad_scale=None if scale is None else device.xp.asarray(np.float32(scale)),
            decayed=9,
        )
        np.testing.assert_array_equal(device.to_host(there[1]), before)
        results.append([device.to_host(there[kept]) for kept in (0, 2, 3)])
    for found, expected in zip(*results, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("scale", [np.nan, np.inf])
def test_adamw_changes_nothing_where_the_scale_is_no_number(device: Backend, scale: float):
    arrays = [moved(device, np.abs(drawn(40)), np.float32) for _ in range(4)]
    before = [device.to_host(x).copy() for x in arrays]
    scalars = moved(device, np.array((0.9, 0.01, 1 - 0.8, 1 - 0.95, 2.0, 1e-8)), np.float32)
    scale_there = device.xp.asarray(np.float32(scale))
    load_kernels("cuda")[adamw_update](*arrays, scalars=scalars, grad_scale=scale_there, decayed=9)
    for x, old in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(device.to_host(x), old)


@pytest.mark.parametrize("size", [1, 301, 5000, 300_000])
@pytest.mark.parametrize("limit", [None, 1e9, 0.5])
@pytest.mark.parametrize("shift", [0, 1])  # of an address that vectors do not fit
def test_clipping_agrees_with_its_reference(device: Backend, size: int, limit: float | None, shift: int):
    gradient = drawn(size)
    there = moved(device, gradient, np.float32, shift)
    found = load_kernels("cuda")[norm_and_scale](there, limit)
    expected = norm_and_scale(gradient, limit)
    assert [float(device.to_host(x)) for x in found] == pytest.approx(expected, rel=1e-6)
    np.testing.assert_array_equal(device.to_host(there), gradient)


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])  # the last squared is infinite, too
def test_the_scale_of_a_gradient_whose_norm_is_not_finite_is_no_number(device: Backend, value: float):
    gradient = np.full(40, value, np.float32)
    there = load_kernels("cuda")[norm_and_scale](moved(device, gradient, np.float32), 1.0)
    for norm, scale in (map(device.to_host, there), norm_and_scale(gradient, 1.0)):
        assert not np.isfinite(norm)
        assert np.isnan(scale)


def test_a_gradient_that_is_pending_is_computed_where_the_weight_is_no_leaf(device: Backend):
    """Of a weight that was computed, and of one that is used twice."""
    x, weight = drawn(6, 8), drawn(8, 8)
    results = []
    for place in (device, get_backend("numpy")):
        leaf = Tensor(moved(place, weight, np.float32))
        doubled = leaf + leaf
        hidden = ops.linear(moved(place, x, np.float32), doubled)
        ops.linear(ops.linear(hidden, doubled), leaf).sum().backward()
        results.append(place.to_host(leaf.grad))
    np.testing.assert_allclose(results[0], results[1], rtol=1e-4, atol=1e-3)
