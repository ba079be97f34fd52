"""Linear layers of one input whose weights are neighbours: one product does for all of them, and says the same."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import pytest

from tests.cuda_on_cpu.places import PLACES, needs_compiler, open_place
from tests.kernels.test_cuda import TOLERANCE, TYPES, drawn, moved
from tinygrad_chat import GPT, ModelOptions, Tensor, ops
from tinygrad_chat.autograd import watched_ops
from tinygrad_chat.backend import Backend, Compute, get_backend
from tinygrad_chat.kernels.cuda import linear, pending, slices
from tinygrad_chat.kernels.cuda.slices import empty_neighbours, joined, split_columns
from tinygrad_chat.models.nanochat import NANOCHAT
from tinygrad_chat.nn import Linear, NewGradient, Parameters, apply_to_one_input
from tinygrad_chat.parallel.buckets import GradientBuckets
from tinygrad_chat.parallel.communicator import Communicator

C, WIDTHS = 24, (16, 8, 8)  # of query, key and value with shared heads
WHOLE = sum(WIDTHS)
Product = tuple[tuple[int, ...], bool]
"""The shape of a product, and whether it is added to what is there."""


@pytest.fixture(scope="module", params=PLACES)
def device(request: pytest.FixtureRequest) -> Iterator[Backend]:
    with open_place(request.param) as backend:
        yield backend


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[Product]:
    """The products of linear layers from now on."""
    found, gemm = [], linear.gemm

    def noted(left: Any, right: Any, out: Any, *, add: bool = False, **options: Any) -> Any:
        found.append((out.shape, add))
        return gemm(left, right, out, add=add, **options)

    monkeypatch.setattr(linear, "gemm", noted)
    monkeypatch.setattr(pending, "gemm", noted)
    return found


def layers_in(
    device: Backend, order: Sequence[int] = (0, 1, 2), *, bias: bool = True, real: str = "float32"
) -> tuple[Parameters, list[Linear]]:
    """Draw three layers whose weights lie in `order` in the buffers of `Parameters`."""
    random = np.random.default_rng(0)
    layers = [Linear(C, D, random=random, bias=bias, std=0.2) for D in WIDTHS]
    for layer in layers:
        layer.weight = Tensor(device.xp.asarray(layer.weight.data))
        if layer.bias is not None:
            layer.bias = Tensor(device.xp.asarray(drawn(len(layer.bias))))
    named = {f"{i}.{name}": each for i in order for name, each in layers[i].named_parameters()}
    return Parameters(named, compute=Compute(device, "cuda", real)), layers


def expected_of(device: Backend, x: Any, layers: Sequence[Linear], d_outs: Sequence[Any]) -> list[np.ndarray]:
    """Return results and gradients, d_x first, as plain products of what the layers hold."""
    x, *d_outs = (device.to_host(each).astype(np.float64).reshape(-1, each.shape[-1]) for each in (x, *d_outs))
    weights = [device.to_host(layer.weight.data).astype(np.float64) for layer in layers]
    outs = [x @ weight.T for weight in weights]
    for out, layer in zip(outs, layers, strict=True):
        if layer.bias is not None:
            out += device.to_host(layer.bias.data).astype(np.float64)
    d_x = np.concatenate(d_outs, axis=1) @ np.concatenate(weights)
    return [*outs, d_x, *(d_out.T @ x for d_out in d_outs), *(d_out.sum(axis=0) for d_out in d_outs)]


def expect_close(device: Backend, found: Sequence[Any], expected: Sequence[np.ndarray], real: str) -> None:
    for mine, reference in zip(found, expected, strict=True):
        mine = device.to_host(mine).astype(np.float64).reshape(reference.shape)
        allowed = TOLERANCE[real] * max(1.0, np.abs(reference).max())
        np.testing.assert_allclose(mine, reference, rtol=0, atol=allowed)


def sweep_back(outs: Sequence[Tensor], d_outs: Sequence[Any], deliver: Any = None) -> None:
    """Sweep through a node that hands the results these gradients as they lie."""
    one = outs[0].data.reshape(-1)[:1]
    Tensor(one, outs, lambda d_out: d_outs).backward(**({} if deliver is None else {"deliver": deliver}))


def gradients_for(device: Backend, real: str, *, together: bool = True) -> list[Any]:
    """Draw a gradient (2, 5, D) for each result: slices of one array if they are to lie `together`."""
    parts = split_columns(moved(device, drawn(2, 5, WHOLE), real), WIDTHS)
    return parts if together else [x.copy() for x in parts]


def apart(*widths: int) -> list[Product]:
    """The products of layers that are computed one after another: results, d_x, the weights' gradients."""
    d_x = [((10, C), number > 0) for number in range(len(widths))]
    return [*(((10, D), False) for D in widths), *d_x, *(((D, C), False) for D in widths)]


CALLS: dict[str, tuple[dict[str, Any], bool, list[Product]]] = {
    "neighbours": ({}, True, apart(WHOLE)),
    "neighbours without biases": ({"bias": False}, True, apart(WHOLE)),
    "gradients that are no neighbours": ({}, False, [((10, WHOLE), False), *apart(*WIDTHS)[3:]]),
    "the last two are neighbours": ({"order": (1, 2, 0)}, True, apart(16, 16)),
    "none are neighbours": ({"order": (2, 1, 0)}, True, apart(*WIDTHS)),
}


@pytest.mark.parametrize("real", TYPES)
@pytest.mark.parametrize("name", CALLS)
def test_layers_of_neighbouring_weights_are_one_product_each_way(
    device: Backend, name: str, real: str, products: list[Product]
):
    options, together, asked = CALLS[name]
    parameters, layers = layers_in(device, real=real, **options)
    x, d_outs = Tensor(moved(device, drawn(2, 5, C), real)), gradients_for(device, real, together=together)
    parameters.gradient.fill(np.nan)
    outs, new = apply_to_one_input(x, *layers), NewGradient(parameters)
    sweep_back(outs, d_outs, new.deliver)
    new.finish()
    assert products == asked
    biases = [layer.bias.grad for layer in layers if layer.bias is not None]
    expected = expected_of(device, x.data, layers, d_outs)
    found = [*(out.data for out in outs), x.grad, *(layer.weight.grad for layer in layers), *biases]
    expect_close(device, found, expected[: len(found)], real)


def test_a_second_gradient_is_added_where_the_first_was_written(device: Backend, products: list[Product]):
    parameters, layers = layers_in(device)
    x, new = Tensor(moved(device, drawn(2, 5, C), "float32")), NewGradient(parameters)
    parameters.gradient.fill(np.nan)
    expected = np.zeros(parameters.size)
    for _ in range(2):
        d_outs = gradients_for(device, "float32")
        sweep_back(apply_to_one_input(x, *layers), d_outs, new.deliver)
        gradients = expected_of(device, x.data, layers, d_outs)[4:]
        expected += np.concatenate([each.ravel() for each in gradients])
    assert [each for each in products if each[0] == (WHOLE, C)] == [((WHOLE, C), False), ((WHOLE, C), True)]
    np.testing.assert_allclose(device.to_host(parameters.gradient), expected, rtol=0, atol=1e-4)


def test_gradients_of_which_one_is_written_and_the_others_are_added_are_apart(device: Backend, products: list[Product]):
    """The query's weight has had a gradient from elsewhere."""
    parameters, layers = layers_in(device, bias=False)
    x, new = Tensor(moved(device, drawn(5, C), "float32")), NewGradient(parameters)
    parameters.gradient.fill(np.nan)
    ops.linear(x, layers[0].weight).backward(device.xp.ones((5, 16), np.float32), deliver=new.deliver)
    d_outs = [each[0] for each in gradients_for(device, "float32")]
    products.clear()
    sweep_back(apply_to_one_input(x, *layers), d_outs, new.deliver)
    assert products[2:] == [((16, C), True), ((16, C), False)]
    _, _, _, _, *expected = expected_of(device, x.data, layers, d_outs)
    expected[0] += np.ones((16, 5)) @ device.to_host(x.data)
    expect_close(device, [layer.weight.grad for layer in layers], expected[:3], "float32")


def test_a_result_that_is_not_used_gives_its_weight_no_gradient(device: Backend):
    parameters, layers = layers_in(device)
    x, new = Tensor(moved(device, drawn(5, C), "float32")), NewGradient(parameters)
    parameters.gradient.fill(np.nan)
    _, key, value = apply_to_one_input(x, *layers)
    (key.sum() + value.sum()).backward(deliver=new.deliver)
    new.finish()
    assert not device.to_host(layers[0].weight.grad).any()
    d_outs = [np.full((5, D), D == 8, np.float32) for D in WIDTHS]
    expected = expected_of(device, x.data, layers, [device.xp.asarray(each) for each in d_outs])[3:]
    biases = [layer.bias.grad for layer in layers if layer.bias is not None]
    found = [x.grad, *(layer.weight.grad for layer in layers), *biases]
    expect_close(device, found, expected, "float32")


BUCKETS = {
    "a bucket for each weight": (1, [16, 8, 8]),
    "a bucket for two of the weights": ((16 + 8) * C, [16 + 8, 8]),
    "one bucket": (10**6, [WHOLE]),
}


@pytest.mark.parametrize("name", BUCKETS)
def test_a_bucket_is_sent_with_all_of_its_gradients_which_are_one_product(
    device: Backend, name: str, products: list[Product]
):
    least, heights = BUCKETS[name]
    parameters, layers = layers_in(device, bias=False)
    sent: list[np.ndarray] = []

    class Recording:
        rank, size = 0, 1

        def start_reduce_scatter(self, array: Any, shares: Any, into: Any) -> Callable[[], None]:
            sent.append(device.to_host(array).copy())
            return lambda: None

    everything = [slice(0, parameters.size)]
    communicator = cast(Communicator, Recording())
    buckets = GradientBuckets(parameters, everything, communicator, parameters.gradient, least)
    for _ in range(2):  # the first one learns how many gradients come
        parameters.gradient.fill(0)
        sent.clear()
        products.clear()
        x = Tensor(moved(device, drawn(2, 5, C), "float32"))
        sweep_back(apply_to_one_input(x, *layers), gradients_for(device, "float32"), buckets.deliver)
        buckets.finish()
    np.testing.assert_array_equal(np.concatenate(sent), device.to_host(parameters.gradient))
    assert all(bucket.all() for bucket in sent)
    assert products[2:] == [((rows, C), True) for rows in heights]


LAYERS: dict[str, tuple[Callable[[list[Linear]], Any], list[str]]] = {
    "plain": (lambda layers: None, ["linears"]),
    "with adapters": (lambda layers: setattr(layers[1], "__class__", type("Adapted", (Linear,), {})), ["linear"] * 3),
    "of which one has no bias": (lambda layers: setattr(layers[2], "bias", None), ["linear"] * 3),
}


@pytest.mark.parametrize("name", LAYERS)
def test_only_plain_layers_are_applied_by_one_op_and_only_where_it_has_a_kernel(device: Backend, name: str):
    change, names = LAYERS[name]
    seen: list[str] = []
    for on_device in (True, False):
        random = np.random.default_rng(0)
        layers = layers_in(device)[1] if on_device else [Linear(C, D, random=random) for D in WIDTHS]
        change(layers)
        x = moved(device, drawn(5, C), "float32") if on_device else drawn(5, C)
        with watched_ops(lambda op, inputs, options: seen.append(op.name) or (lambda out, rule: rule)):
            apply_to_one_input(Tensor(x), *layers)
    assert seen == [*names, *["linear"] * 3]


LLAMA = {"positions": "rotary", "norm": "rmsnorm", "tied": False, "key_value_heads": 1}
MODELS: dict[str, dict[str, Any]] = {
    "heads": {},
    "shared heads": {"key_value_heads": 1},
    "rotary positions and shared heads": LLAMA,
    "a norm with a gain, too": {**LLAMA, "qk_norm": 1.0, "qk_gain": True, "query_key_value_bias": True},
    "nanochat's": {**NANOCHAT, "window_pattern": "SL"},
    "nanochat's, with tiles": {**NANOCHAT, "window_pattern": "SL", "width": 128},
}


@pytest.mark.parametrize("recompute", [False, True], ids=["", "recomputed"])
@pytest.mark.parametrize("name", MODELS)
def test_attention_hands_the_gradients_of_a_model_back_as_one(
    device: Backend, name: str, recompute: bool, products: list[Product]
):
    options = ModelOptions(**{"layers": 2, "heads": 2, "width": C, "context": 8, **MODELS[name]})
    model = GPT(11, options, compute=Compute(device, "cuda", "bfloat16"))
    model.recompute = recompute
    tokens = np.random.default_rng(0).integers(11, size=(2, 9))
    new = NewGradient(model.parameters())
    loss = model.loss(tokens[:, :-1], tokens[:, 1:])
    loss.backward(deliver=new.deliver)
    whole = options.query_width + 2 * options.key_value_width
    assert products.count(((16, whole), False)) == options.layers * (1 + recompute)
    assert products.count(((whole, options.width), False)) == options.layers
    assert not any(add for _, add in products)
    model.loss(tokens[:, :-1], tokens[:, 1:]).backward()
    assert products.count(((whole, options.width), True)) == options.layers


@pytest.mark.parametrize("recompute", [False, True], ids=["", "recomputed"])
@pytest.mark.parametrize("bias", [False, True], ids=["", "biases"])
def test_gate_and_the_layer_that_it_gates_are_one_product_each_way(
    device: Backend, bias: bool, recompute: bool, products: list[Product]
):
    options = ModelOptions(layers=2, heads=2, width=C, context=8, activation="swiglu", bias=bias)
    model = GPT(11, options, compute=Compute(device, "cuda", "bfloat16"))
    model.recompute = recompute
    tokens, new = np.random.default_rng(0).integers(11, size=(2, 9)), NewGradient(model.parameters())
    model.loss(tokens[:, :-1], tokens[:, 1:]).backward(deliver=new.deliver)
    both = 2 * options.feed_forward_channels
    assert products.count(((16, both), False)) == options.layers * (1 + recompute)
    assert products.count(((both, C), False)) == options.layers
    assert not any(add for _, add in products)


cosine, sine = (angles.astype(np.float32) for angles in ops.rotary_angles(5, 8))
TURN = {"cosine": cosine, "sine": sine, "rms": 1.2}
SLICES: dict[str, tuple[Any, list[np.ndarray], dict[str, Any]]] = {
    "rotary": (ops.rotary, [], TURN),
    "rotary with a gain": (ops.rotary, [drawn(8)], TURN),
    "gated_sum": (ops.gated_sum, [drawn(2, 5, 16), drawn(2, 5, 2)], {"reach": 3.0}),
    "swiglu's gate": (ops.swiglu, [drawn(2, 5, 16)], {}),
    "swiglu's other input": (lambda up, gate: ops.swiglu(gate, up), [drawn(2, 5, 16)], {}),
}


@pytest.mark.parametrize(("width", "start"), [(32, 0), (32, 8), (35, 0), (35, 3)])
@pytest.mark.parametrize("real", TYPES)
@pytest.mark.parametrize("name", SLICES)
def test_slices_of_an_array_and_of_its_gradient_are_read_where_they_lie(
    device: Backend, name: str, real: str, width: int, start: int, monkeypatch: pytest.MonkeyPatch
):
    op, others, options = SLICES[name]
    whole, d_whole, part = drawn(2, 5, width), drawn(2, 5, width), np.s_[..., start : start + 16]
    copies = []
    monkeypatch.setattr(slices, "contiguous", lambda *given: copies.append(given))

    def outcome(place: Backend, kind: str) -> list[np.ndarray]:
        def put(x: np.ndarray) -> Any:
            return moved(place, x.astype(real).astype(np.float32), kind)

        there = {key: place.xp.asarray(x) if isinstance(x, np.ndarray) else x for key, x in options.items()}
        nodes = [Tensor(put(whole)[part]), *(Tensor(put(x)) for x in others)]
        out = op(*nodes, **there)
        out.backward(put(d_whole)[part])
        return [out.data, *(node.grad for node in nodes)]

    expect_close(device, outcome(device, real), outcome(get_backend("numpy"), "float32"), real)
    assert not copies


class TestJoinedSlices:
    """What counts as neighbours."""

    @staticmethod
    def whole(device: Backend) -> Any:
        return moved(device, drawn(2, 4, 6), "float32")

    def test_slices_that_follow_one_another_are_the_array_that_they_are_a_part_of(self, device: Backend):
        x = self.whole(device)
        for found, wanted in (
            (joined([x[..., :1], x[..., 1:3], x[..., 3:5]], -1), x[..., :5]),
            (joined([x[:, :1], x[:, 1:4]], 1), x),
            (joined([x.ravel()[:3], x.ravel()[3:9]], 0), x.ravel()[:9]),
            (joined([x], 0), x),
        ):
            assert (found.shape, found.strides, found.data.ptr) == (wanted.shape, wanted.strides, wanted.data.ptr)
            np.testing.assert_array_equal(device.to_host(found), device.to_host(wanted))

    def test_others_are_not(self, device: Backend):
        x, other = self.whole(device), self.whole(device)
        for pieces, axis in (
            ([x[..., 1:3], x[..., :1]], -1),  # in another order
            ([x[..., :2], x[..., 3:]], -1),  # with a gap
            ([x[..., :2], x[..., 1:]], -1),  # with an overlap
            ([x[..., :2], other[..., 2:]], -1),
            ([x[..., :2], x[:1, :, 2:]], -1),  # of fewer rows
            ([x[0, :2], x[0, 2:].T], 0),
            ([x[..., :2], x[..., 2:].view(np.int32)], -1),
            ([x[:, ::2], x[:, 1::2]], 1),
        ):
            assert joined(pieces, axis) is None

    @needs_compiler
    def test_neighbours_in_memory_that_were_allocated_apart_are_not(self):
        """They may be freed apart."""
        with open_place("host") as device:
            x = self.whole(device).ravel()

            def alone(part: Any) -> Any:
                memory: Any = (ctypes.c_float * part.size).from_address(part.data.ptr)
                return np.frombuffer(memory, np.float32).view(type(part))

            assert joined([alone(x[:3]), alone(x[3:])], 0) is None

    def test_new_arrays_of_the_same_rows_are_neighbours(self, device: Backend):
        x = self.whole(device)
        together = empty_neighbours([x[..., 2:], x[..., :3]])
        assert joined(together, -1) is not None
        assert [each.shape for each in together] == [(2, 4, 4), (2, 4, 3)]
        apart = empty_neighbours([x, x[:, 1:]])
        assert [each.shape for each in apart] == [(2, 4, 6), (2, 3, 6)]
        assert all(each.flags.c_contiguous for each in apart)
