"""Every op once: how to draw inputs that suit it, and what PyTorch calls it.

test_catalogue.py proves each entry in several ways; a new op needs an entry here and one in test_sizes.py. An entry
whose function is not an op itself (`split`) proves a composition that the public ops contain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, mutually_broadcastable_shapes

from tinygrad_chat import ops


@dataclass(frozen=True)
class Case:
    """One call: positional inputs (float arrays have gradients) and keyword options."""

    inputs: tuple[Any, ...]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """`function` under test, a strategy of `cases`, and the same in PyTorch (called with tensors and options)."""

    function: Callable[..., Any]
    cases: st.SearchStrategy[Case]
    torch: Callable[..., Any]

    @property
    def op(self) -> Any:
        """The op that the entry proves, if it is one."""
        return self.function.op if isinstance(self.function, Joined) else self.function


# How numbers are drawn: normal, unless the op has a kink or a domain.

seeds = st.integers(0, 2**32 - 1).map(np.random.default_rng)
shapes = array_shapes(min_dims=0, max_dims=3, max_side=4)
matrices = array_shapes(min_dims=1, max_dims=3, max_side=4)


def normal(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(random.normal(size=shape))


def positive(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return 0.3 + np.abs(normal(random, shape))


def away_from_zero(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return positive(random, shape) * np.asarray(random.choice([-1.0, 1.0], size=shape))


def distinct(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(random.permutation(int(np.prod(shape, dtype=int))).reshape(shape) / 2.0)


# How cases are drawn.


@st.composite
def one(draw: st.DrawFn, numbers: Callable[..., np.ndarray] = normal) -> Case:
    return Case((numbers(draw(seeds), draw(shapes)),))


@st.composite
def two(draw: st.DrawFn, first: Callable[..., np.ndarray] = normal, second: Callable[..., np.ndarray] = normal) -> Case:
    """Two arrays whose shapes broadcast with each other."""
    random = draw(seeds)
    x_shape, y_shape = draw(mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=4)).input_shapes
    return Case((first(random, x_shape), second(random, y_shape)))


@st.composite
def reductions(draw: st.DrawFn, numbers: Callable[..., np.ndarray] = normal) -> Case:
    shape = draw(matrices)
    axes = st.integers(-len(shape), len(shape) - 1)
    pairs = st.just((0, -1)) if len(shape) > 1 else axes
    axis = draw(st.one_of(st.none(), axes, pairs))
    return Case((numbers(draw(seeds), shape),), {"axis": axis, "keepdims": draw(st.booleans())})


@st.composite
def along_an_axis(draw: st.DrawFn) -> Case:
    shape = draw(matrices)
    return Case((normal(draw(seeds), shape),), {"axis": draw(st.integers(-len(shape), len(shape) - 1))})


@st.composite
def reshapes(draw: st.DrawFn) -> Case:
    shape = draw(matrices)
    target = draw(st.sampled_from([(-1,), (1, -1), (*shape, 1), shape[::-1]]))
    return Case((normal(draw(seeds), shape),), {"shape": target})


@st.composite
def transposes(draw: st.DrawFn) -> Case:
    shape = draw(matrices)
    axes = draw(st.one_of(st.none(), st.permutations(range(len(shape))).map(tuple)))
    return Case((normal(draw(seeds), shape),), {"axes": axes})


@st.composite
def indices(draw: st.DrawFn) -> Case:
    keys: list[Any] = [
        1,
        slice(0, 2),
        (slice(None), -1),
        (..., None, 0),
        (slice(None, None, 2), slice(1, 3)),
        np.array([0, 2, 0, 0]),
        (np.array([1, 1]), np.array([0, 0])),
        np.array([True, False, True]),
    ]
    return Case((normal(draw(seeds), (3, 4)),), {"key": draw(st.sampled_from(keys))})


@st.composite
def splits(draw: st.DrawFn) -> Case:
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    axis = draw(st.integers(-2, 1))
    shape = (sum(sizes), 2) if axis % 2 == 0 else (2, sum(sizes))
    return Case((normal(draw(seeds), shape),), {"sizes": sizes, "axis": axis})


@st.composite
def pieces(draw: st.DrawFn) -> Case:
    random, axis = draw(seeds), draw(st.integers(-2, 1))
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    return Case(tuple(normal(random, (size, 2) if axis % 2 == 0 else (2, size)) for size in sizes), {"axis": axis})


@st.composite
def stacks(draw: st.DrawFn) -> Case:
    random, shape, count = draw(seeds), draw(shapes), draw(st.integers(1, 3))
    axis = draw(st.integers(-len(shape) - 1, len(shape)))
    return Case(tuple(normal(random, shape) for _ in range(count)), {"axis": axis})


@st.composite
def choices(draw: st.DrawFn) -> Case:
    random = draw(seeds)
    shape, *others = draw(mutually_broadcastable_shapes(num_shapes=3, max_dims=3, max_side=4)).input_shapes
    return Case((np.asarray(random.random(shape) < 0.5), *(normal(random, other) for other in others)))


@st.composite
def clips(draw: st.DrawFn) -> Case:
    bounds = draw(st.sampled_from([{"min": -0.5}, {"max": 0.5}, {"min": -0.5, "max": 0.5}]))
    return Case((away_from_zero(draw(seeds), draw(shapes)) * 1.1,), bounds)  # seldom at a bound


@st.composite
def spreads(draw: st.DrawFn) -> Case:
    """Reductions of at least two elements."""
    shape = draw(array_shapes(min_dims=1, max_dims=3, min_side=2, max_side=4))
    axis = draw(st.one_of(st.none(), st.integers(-len(shape), len(shape) - 1)))
    options = {"axis": axis, "keepdims": draw(st.booleans()), "correction": draw(st.integers(0, 1))}
    return Case((normal(draw(seeds), shape),), options)


@st.composite
def products(draw: st.DrawFn) -> Case:
    random = draw(seeds)
    N, K, M = (draw(st.integers(1, 4)) for _ in range(3))
    batches = draw(mutually_broadcastable_shapes(num_shapes=2, max_dims=2, max_side=3)).input_shapes
    x, y = normal(random, (*batches[0], N, K)), normal(random, (*batches[1], K, M))
    if draw(st.booleans()):  # the same numbers, lying in memory the other way round
        y = np.ascontiguousarray(y.swapaxes(-1, -2)).swapaxes(-1, -2)
    return Case((x, y))


@st.composite
def linears(draw: st.DrawFn) -> Case:
    random, lead = draw(seeds), draw(array_shapes(min_dims=0, max_dims=2, max_side=3))
    C, D = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    inputs = (normal(random, (*lead, C)), normal(random, (D, C)), normal(random, (D,)))
    return Case(inputs if draw(st.booleans()) else inputs[:2])


@st.composite
def linears_of_one_input(draw: st.DrawFn) -> Case:
    random, lead = draw(seeds), draw(array_shapes(min_dims=0, max_dims=2, max_side=3))
    C, widths = draw(st.integers(1, 4)), draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    weights, biases = [normal(random, (D, C)) for D in widths], [normal(random, (D,)) for D in widths]
    return Case((normal(random, (*lead, C)), *weights, *(biases if draw(st.booleans()) else [])))


@st.composite
def embeddings(draw: st.DrawFn) -> Case:
    random, V, C = draw(seeds), draw(st.integers(1, 5)), draw(st.integers(1, 4))
    return Case((normal(random, (V, C)), random.integers(0, V, size=draw(shapes))))


@st.composite
def norms(draw: st.DrawFn, most_vectors: int, *, added: bool = False) -> Case:
    random, shape = draw(seeds), draw(array_shapes(min_dims=1, max_dims=3, min_side=2, max_side=5))
    vectors = draw(st.integers(most_vectors - 1, most_vectors))
    return Case(
        (*normal(random, (1 + added, *shape)), *(normal(random, shape[-1:]) for _ in range(vectors))),
        {"epsilon": draw(st.sampled_from([1e-5, 1e-2]))},
    )


@st.composite
def attentions(draw: st.DrawFn) -> Case:
    random = draw(seeds)
    B, G, shared, T, D = (draw(st.integers(1, most)) for most in (2, 2, 2, 5, 3))
    S = T + draw(st.integers(0, 2))
    window = draw(st.one_of(st.none(), st.integers(1, 4)))
    starts = document_starts(random, B, T, S) if draw(st.booleans()) else None
    query, (key, value) = normal(random, (B, T, G * shared * D)), normal(random, (2, B, S, G * D))
    options = {"heads": G * shared, "causal": draw(st.booleans()), "window": window, "document_starts": starts}
    if draw(st.booleans()):
        options["length"] = np.array(S)  # keys; behind them there is room for more
        room = normal(random, (2, B, draw(st.integers(0, 2)), G * D))
        key, value = np.concatenate([(key, value), room], axis=2)
    return Case((query, key, value), options)


def document_starts(random: np.random.Generator, B: int, T: int, S: int) -> np.ndarray:
    """Where the document of each of T queries begins among S keys, (B, T): anywhere up to its own position."""
    own = np.arange(S - T, S)
    return np.maximum.accumulate(random.integers(0, own + 1, size=(B, T)), axis=1)


@st.composite
def rotations(draw: st.DrawFn) -> Case:
    random, lead = draw(seeds), draw(array_shapes(min_dims=0, max_dims=2, max_side=3))
    T, H, half = (draw(st.integers(1, most)) for most in (4, 2, 3))
    cosine, sine = (angles.astype(np.float64) for angles in ops.rotary_angles(T, 2 * half))
    options = {"cosine": cosine, "sine": sine, "rms": draw(st.sampled_from([None, 1.0, 1.2]))}
    gain = normal(random, (draw(st.integers(0, 1)), 2 * half))
    return Case((normal(random, (*lead, T, H * 2 * half)), *gain), options)


@st.composite
def gates(draw: st.DrawFn) -> Case:
    return Case(tuple(normal(draw(seeds), (2, *draw(shapes)))))


@st.composite
def losses(draw: st.DrawFn) -> Case:
    random, lead, V = draw(seeds), draw(shapes), draw(st.integers(1, 5))
    targets = np.asarray(random.integers(-1 if draw(st.booleans()) else 0, V, size=lead))
    options = draw(st.sampled_from([{}, {"soft_cap": 2.0}, {"ignore_index": 0}, {"token_count": 7}, {"weights": True}]))
    ignored = options.get("ignore_index", -1)
    targets = np.where(targets == -1, ignored, targets)
    if np.all(targets == ignored):  # PyTorch's mean over no token is nan; test_ops.py states ours
        targets, options = np.zeros_like(targets), {}
    if "weights" in options:
        options = {"weights": normal(random, lead)}
    return Case((3 * normal(random, (*lead, V)), targets), options)


@st.composite
def dropouts(draw: st.DrawFn) -> Case:
    rate = draw(st.sampled_from([0.0, 0.2, 0.5]))
    return Case((normal(draw(seeds), draw(shapes)),), {"rate": rate, "seed": draw(st.integers(0, 99))})


@st.composite
def scaled_sums(draw: st.DrawFn) -> Case:
    random, shape, L = draw(seeds), draw(matrices), draw(st.integers(1, 3))
    x, y = normal(random, (2, *shape))
    scales = normal(random, (draw(st.integers(1, 2)), L))
    return Case((x, y, *scales), {"layer": draw(st.integers(0, L - 1)), "subtract": draw(st.booleans())})


@st.composite
def gated_sums(draw: st.DrawFn) -> Case:
    random, lead = draw(seeds), draw(array_shapes(min_dims=0, max_dims=2, max_side=3))
    G, D = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    x, y = normal(random, (2, *lead, G * D))
    return Case((x, y, normal(random, (*lead, G))), {"reach": draw(st.sampled_from([1.0, 3.0]))})


@st.composite
def smears(draw: st.DrawFn) -> Case:
    random = draw(seeds)
    B, T, C = (draw(st.integers(1, 4)) for _ in range(3))
    before = normal(random, (B, 1, C)) if draw(st.booleans()) else None
    inputs = normal(random, (B, T, C)), normal(random, (1, draw(st.integers(1, C)))), normal(random, (1,))
    return Case(inputs, {"before": before})


# Functions that need a word more than the op's own name.


@dataclass(frozen=True)
class Joined:
    """An op of several results (..., C) as a function of one: they lie side by side. It has the op's name."""

    op: Callable[..., Any]

    @property
    def __name__(self) -> str:
        return self.op.name  # pyright: ignore[reportFunctionMemberAccess]

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        return ops.concatenate(*self.op(*inputs, **options), axis=-1)


def split_and_reverse(x: Any, *, sizes: list[int], axis: int) -> Any:
    return ops.concatenate(*reversed(ops.split(x, sizes, axis)), axis=axis)


# PyTorch's side. Imported late: the catalogue also serves the tests that run without it.


def torch_function(name: str) -> Callable[..., Any]:
    def function(*inputs: Any, **options: Any) -> Any:
        import torch

        return getattr(torch, name)(*inputs, **options)

    return function


def functional(name: str, **fixed: Any) -> Callable[..., Any]:
    def function(*inputs: Any, **options: Any) -> Any:
        import torch.nn.functional as F

        return getattr(F, name)(*inputs, **fixed, **options)

    return function


def torch_reduction(name: str) -> Callable[..., Any]:
    def function(x: Any, *, axis: Any, keepdims: bool, **options: Any) -> Any:
        every = tuple(range(x.ndim))
        return getattr(x, name)(dim=every if axis is None else axis, keepdim=keepdims, **options)

    return function


def torch_norm(name: str) -> Callable[..., Any]:
    def function(x: Any, *vectors: Any, epsilon: float) -> Any:
        import torch.nn.functional as F

        return getattr(F, name)(x, x.shape[-1:], *vectors, eps=epsilon)

    return function


def torch_linears(x: Any, *weights_and_biases: Any) -> Any:
    import torch
    from torch.nn.functional import linear

    count = sum(each.ndim == 2 for each in weights_and_biases)
    weights, biases = weights_and_biases[:count], weights_and_biases[count:] or [None] * count
    return torch.cat([linear(x, weight, bias) for weight, bias in zip(weights, biases, strict=True)], dim=-1)


def torch_added(name: str) -> Callable[..., Any]:
    def function(x: Any, branch: Any, *vectors: Any, epsilon: float) -> Any:
        import torch

        total = x + branch
        return torch.cat([total, torch_norm(name)(total, *vectors, epsilon=epsilon)], dim=-1)

    return function


def torch_attention(
    query: Any,
    key: Any,
    value: Any,
    *,
    heads: int,
    causal: bool,
    window: int | None,
    document_starts: Any = None,
    length: Any = None,
) -> Any:
    import torch
    import torch.nn.functional as F

    key, value = (x[:, :length] for x in (key, value))
    T, S, shared = query.shape[1], key.shape[1], query.shape[2] // key.shape[2]
    query, key, value = (x.unflatten(-1, (-1, query.shape[2] // heads)).transpose(1, 2) for x in (query, key, value))
    age = torch.arange(S - T, S)[:, None] - torch.arange(S)[None, :]
    mask = (age >= 0) | (not causal)
    if window is not None:
        mask = mask & (age < window)
    if document_starts is not None:
        mask = mask & (torch.arange(S) >= torch.as_tensor(document_starts)[:, None, :, None])
    key, value = (x.repeat_interleave(shared, dim=1) for x in (key, value))
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).flatten(-2)


def torch_rotary(x: Any, gain: Any = None, *, cosine: Any, sine: Any, rms: float | None) -> Any:
    """A turn written as a product of complex numbers."""
    import torch

    if rms is not None:
        heads = x.unflatten(-1, (-1, 2 * cosine.shape[-1]))
        x = rms * torch.nn.functional.rms_norm(heads, heads.shape[-1:], eps=1e-5).flatten(-2)
    if gain is not None:
        x = (x.unflatten(-1, (-1, 2 * cosine.shape[-1])) * gain).flatten(-2)
    first, second = x.unflatten(-1, (-1, 2, cosine.shape[-1])).unbind(-2)
    turned = torch.complex(first, second) * torch.as_tensor(cosine + 1j * sine)[:, None]
    return torch.stack([turned.real, turned.imag], dim=-2).reshape(x.shape)


def torch_scaled_sum(x: Any, y: Any, y_scales: Any, x_scales: Any = None, *, layer: int, subtract: bool) -> Any:
    x, y = (x if x_scales is None else x * x_scales[layer]), y * y_scales[layer]
    return x - y if subtract else x + y


def torch_gated_sum(x: Any, y: Any, logits: Any, *, reach: float) -> Any:
    gates = reach * logits.sigmoid().repeat_interleave(x.shape[-1] // logits.shape[-1], dim=-1)
    return x + gates * y


def torch_smear(x: Any, weight: Any, scale: Any, *, before: Any) -> Any:
    import torch

    first = torch.zeros_like(x[:, :1]) if before is None else torch.as_tensor(before)
    gates = scale * torch.nn.functional.linear(x[..., : weight.shape[1]], weight).sigmoid()
    return x + gates * torch.cat([first, x[:, :-1]], dim=1)


def torch_cross_entropy(
    logits: Any,
    targets: Any,
    *,
    soft_cap: float | None = None,
    ignore_index: int = -1,
    token_count: int | None = None,
    weights: Any = None,
) -> Any:
    import torch
    import torch.nn.functional as F

    if soft_cap is not None:
        logits = soft_cap * (logits / soft_cap).tanh()
    total = F.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), targets.reshape(-1), ignore_index=ignore_index, reduction="none"
    )
    total = (total if weights is None else total * torch.as_tensor(weights).reshape(-1)).sum()
    return total / (token_count or (targets != ignore_index).sum())


def torch_dropout(x: Any, *, rate: float, seed: int) -> Any:
    """The same elements fall: which ones is our choice, the scaling and its gradient are PyTorch's."""
    import torch

    kept = [split_mix(seed, index) >= rate for index in range(x.numel())]
    return x * torch.tensor(kept).reshape(x.shape) / (1 - rate)


def split_mix(seed: int, index: int) -> float:
    """The index-th number of SplitMix64, step by step."""
    modulus = 2**64
    z = (seed + (index + 1) * 0x9E3779B97F4A7C15) % modulus
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % modulus
    z = (z ^ z >> 27) * 0x94D049BB133111EB % modulus
    return ((z ^ z >> 31) >> 40) / 2**24


CATALOGUE: dict[str, Entry] = {
    "add": Entry(ops.add, two(), torch_function("add")),
    "subtract": Entry(ops.subtract, two(), torch_function("sub")),
    "multiply": Entry(ops.multiply, two(), torch_function("mul")),
    "divide": Entry(ops.divide, two(normal, away_from_zero), torch_function("div")),
    "power": Entry(ops.power, two(positive, normal), torch_function("pow")),
    "negative": Entry(ops.negative, one(), torch_function("neg")),
    "where": Entry(ops.where, choices(), torch_function("where")),
    "abs": Entry(ops.abs, one(away_from_zero), torch_function("abs")),
    "clip": Entry(ops.clip, clips(), torch_function("clip")),
    "exp": Entry(ops.exp, one(), torch_function("exp")),
    "log": Entry(ops.log, one(positive), torch_function("log")),
    "sqrt": Entry(ops.sqrt, one(positive), torch_function("sqrt")),
    "tanh": Entry(ops.tanh, one(), torch_function("tanh")),
    "sigmoid": Entry(ops.sigmoid, one(), torch_function("sigmoid")),
    "relu": Entry(ops.relu, one(away_from_zero), torch_function("relu")),
    "squared_relu": Entry(ops.squared_relu, one(away_from_zero), lambda x: x.relu() ** 2),
    "swiglu": Entry(ops.swiglu, gates(), lambda gate, up: functional("silu")(gate) * up),
    "gelu": Entry(ops.gelu, one(), functional("gelu", approximate="tanh")),
    "sum": Entry(ops.sum, reductions(), torch_reduction("sum")),
    "mean": Entry(ops.mean, reductions(), torch_reduction("mean")),
    "var": Entry(ops.var, spreads(), torch_reduction("var")),
    "std": Entry(ops.std, spreads(), torch_reduction("std")),
    "max": Entry(ops.max, reductions(distinct), torch_reduction("amax")),
    "min": Entry(ops.min, reductions(distinct), torch_reduction("amin")),
    "reshape": Entry(ops.reshape, reshapes(), torch_function("reshape")),
    "transpose": Entry(
        ops.transpose, transposes(), lambda x, *, axes: x.permute(axes or tuple(reversed(range(x.ndim))))
    ),
    "index": Entry(ops.index, indices(), lambda x, *, key: x[key]),
    "split": Entry(
        split_and_reverse,
        splits(),
        lambda x, *, sizes, axis: torch_function("cat")(x.split(sizes, dim=axis)[::-1], dim=axis),
    ),
    "concatenate": Entry(ops.concatenate, pieces(), lambda *x, axis: torch_function("cat")(x, dim=axis)),
    "stack": Entry(ops.stack, stacks(), lambda *x, axis: torch_function("stack")(x, dim=axis)),
    "matmul": Entry(ops.matmul, products(), torch_function("matmul")),
    "linear": Entry(ops.linear, linears(), functional("linear")),
    "linears": Entry(Joined(ops.linears), linears_of_one_input(), torch_linears),
    "embedding": Entry(ops.embedding, embeddings(), lambda table, tokens: table[tokens]),
    "softmax": Entry(ops.softmax, along_an_axis(), lambda x, *, axis: x.softmax(dim=axis)),
    "log_softmax": Entry(ops.log_softmax, along_an_axis(), lambda x, *, axis: x.log_softmax(dim=axis)),
    "layernorm": Entry(ops.layernorm, norms(most_vectors=2), torch_norm("layer_norm")),
    "rmsnorm": Entry(ops.rmsnorm, norms(most_vectors=1), torch_norm("rms_norm")),
    "add_layernorm": Entry(Joined(ops.add_layernorm), norms(most_vectors=2, added=True), torch_added("layer_norm")),
    "add_rmsnorm": Entry(Joined(ops.add_rmsnorm), norms(most_vectors=1, added=True), torch_added("rms_norm")),
    "attention": Entry(ops.attention, attentions(), torch_attention),
    "rotary": Entry(ops.rotary, rotations(), torch_rotary),
    "scaled_sum": Entry(ops.scaled_sum, scaled_sums(), torch_scaled_sum),
    "gated_sum": Entry(ops.gated_sum, gated_sums(), torch_gated_sum),
    "smear": Entry(ops.smear, smears(), torch_smear),
    "cross_entropy": Entry(ops.cross_entropy, losses(), torch_cross_entropy),
    "dropout": Entry(ops.dropout, dropouts(), torch_dropout),
}
