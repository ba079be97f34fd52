"""Random graphs, grown, swept, reset and grown on, against an oracle that never goes backwards.

The oracle keeps a plain record of what was computed from what and pushes tangents forwards through it, by formulas of
its own: the slope of the root along a direction of a node must be the projection, on that direction, of the gradient
that the engine left there.
"""

from __future__ import annotations

import inspect
import operator
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tinygrad_chat import Tensor, Value, ops
from tinygrad_chat.autograd import Node, backpropagate
from tinygrad_chat.ops.broadcasting import sum_to

# Graphs for each machine, by how many examples a test gets in the profiles of conftest.py.
GRAPHS = {10: 20, 25: 100, 500: 2000}.get(settings().max_examples, settings().max_examples)
STEPS = 20

TOLERANCE = 1e-9
LARGEST = 100.0  # no number in a graph is larger,
STEEPEST = 1e3  # no slope of a root that is swept is steeper: so rounding stays far below the tolerance
MOST_ELEMENTS, MOST_LINES = 24, 40

if GRAPHS > 100:
    pytestmark = pytest.mark.timeout(600)


# The oracle.


@dataclass(frozen=True)
class Op:
    """What the engine runs, and what the oracle knows of it: its value, and its tangent from those of the inputs."""

    run: Callable[..., Any]
    value: Callable[..., Any]
    tangent: Callable[..., Any]  # (values, tangents, **options)
    fits: Callable[..., bool] = lambda *values: True
    inputs: tuple[int, ...] = (1,)  # how many it may have,
    takes: Any = (Value, Tensor, np.ndarray, float, int)  # and of which types
    options: Callable[..., list[dict[str, Any]]] = lambda *values: [{}]  # those to choose from


@dataclass(frozen=True)
class Step:
    """A line of the record: a number that was given, or an op and the lines of its inputs."""

    value: np.ndarray
    op: Op | None = None
    inputs: tuple[int, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


def push(record: Sequence[Step], start: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Tangents of all lines that depend on the lines in `start`, which move in the directions given there."""
    tangents = dict(start)
    for line, step in enumerate(record):
        if step.op and line not in start and any(k in tangents for k in step.inputs):
            values = [record[k].value for k in step.inputs]
            moves = [tangents.get(k, np.zeros_like(record[k].value)) for k in step.inputs]
            tangents[line] = np.asarray(step.op.tangent(values, moves, **step.options))
    return tangents


def pointwise(run: Any, value: Any, *partials: Any, fits: Any = lambda *values: True) -> Op:
    """An op on elements, by its partial derivatives."""

    def tangent(values: Any, moves: Any) -> Any:
        return sum(partial(*values) * move for partial, move in zip(partials, moves, strict=True))

    return Op(run, value, tangent, fits, inputs=(len(partials),))


def linear(run: Any, value: Any, **more: Any) -> Op:
    """An op that moves and adds elements: it does to tangents what it does to values."""
    return Op(run, value, lambda values, moves, **options: value(*moves, **options), **more)


def softmax_tangent(values: Any, moves: Any, axis: int) -> Any:
    e = np.exp(values[0])
    p = e / e.sum(axis, keepdims=True)
    return p * moves[0] - p * (p * moves[0]).sum(axis, keepdims=True)


# The ops, with the domains in which numbers and slopes stay tame.


def broadcast(x: Any, y: Any) -> bool:
    return all(1 in pair or pair[0] == pair[1] for pair in zip(x.shape[::-1], y.shape[::-1], strict=False))


def apart(x: Any) -> bool:
    """No two elements so close that rounding decides which is larger."""
    in_order: Any = np.sort(x, axis=None)
    return bool(np.all(in_order[1:] - in_order[:-1] > 1e-6))


def axes(x: Any) -> list[dict[str, Any]]:
    return [{"axis": axis} for axis in range(x.ndim)]


def reductions(x: Any) -> list[dict[str, Any]]:
    return [{"axis": None}, *axes(x), *({"axis": axis, "keepdims": True} for axis in range(x.ndim))]


def shapes(x: Any) -> list[dict[str, Any]]:
    return [{"shape": shape} for shape in [(x.size,), (1, x.size), x.shape[::-1], (*x.shape, 1)]]


def keys(x: Any) -> list[dict[str, Any]]:
    return [{"key": key} for key in (0, slice(None, None, -1), (..., -1), np.array([0, -1, 0])) if x.ndim]


def seams(*pieces: Any) -> list[dict[str, Any]]:
    first, *others = (piece.shape for piece in pieces)
    return [
        {"axis": axis}
        for axis in range(len(first))
        if all(
            (*s[:axis], *s[axis + 1 :]) == (*first[:axis], *first[axis + 1 :]) and len(s) == len(first) for s in others
        )
    ]


def multiplies(x: Any, y: Any) -> bool:
    return x.ndim >= 2 and y.ndim >= 2 and x.shape[-1] == y.shape[-2] and broadcast(x[..., 0, 0], y[..., 0, 0])


def is_layer(x: Any, weight: Any, bias: Any = None) -> bool:
    fits = x.ndim >= 1 and weight.ndim == 2 and x.shape[-1] == weight.shape[1]
    return fits and (bias is None or bias.shape == weight.shape[:1])


def layer_tangent(values: Any, moves: Any) -> Any:
    (x, weight), (d_x, d_weight), d_bias = values[:2], moves[:2], moves[2:]
    return d_x @ weight.T + x @ d_weight.T + sum(d_bias)


# On Values and Tensors alike.
POINTWISE = {
    "add": pointwise(operator.add, np.add, lambda x, y: 1, lambda x, y: 1, fits=broadcast),
    "subtract": pointwise(operator.sub, np.subtract, lambda x, y: 1, lambda x, y: -1, fits=broadcast),
    "multiply": pointwise(operator.mul, np.multiply, lambda x, y: y, lambda x, y: x, fits=broadcast),
    "divide": pointwise(
        operator.truediv,
        np.divide,
        lambda x, y: 1 / y,
        lambda x, y: -x / y**2,
        fits=lambda x, y: broadcast(x, y) and np.abs(y).min() >= 0.2,
    ),
    "power": pointwise(
        operator.pow,
        np.power,
        lambda x, y: x**y * y / x,
        lambda x, y: x**y * np.log(x),
        fits=lambda x, y: broadcast(x, y) and x.min() >= 0.2 and x.max() <= 5 and np.abs(y).max() <= 3,
    ),
    "negative": pointwise(operator.neg, np.negative, lambda x: -1),
    "exp": pointwise(lambda x: x.exp(), np.exp, np.exp, fits=lambda x: x.max() <= 4),
    "log": pointwise(lambda x: x.log(), np.log, lambda x: 1 / x, fits=lambda x: x.min() >= 0.1),
    "sqrt": pointwise(lambda x: x.sqrt(), np.sqrt, lambda x: 0.5 / np.sqrt(x), fits=lambda x: x.min() >= 0.1),
    "tanh": pointwise(lambda x: x.tanh(), np.tanh, lambda x: 1 / np.cosh(x) ** 2),
    "relu": pointwise(
        lambda x: x.relu(), lambda x: np.maximum(x, 0), lambda x: x > 0, fits=lambda x: np.abs(x).min() >= 1e-6
    ),
}
# On Tensors alone.
ARRAYS = (Tensor, np.ndarray)
ARRAY = {
    "sum": linear(lambda x, **o: x.sum(**o), np.sum, options=reductions, takes=ARRAYS),
    "mean": linear(lambda x, **o: x.mean(**o), np.mean, options=reductions, takes=ARRAYS),
    "max": Op(
        lambda x, **o: x.max(**o),
        np.max,
        lambda values, moves, **o: (moves[0] * (values[0] == values[0].max(o["axis"], keepdims=True))).sum(**o),
        fits=apart,
        options=reductions,
        takes=ARRAYS,
    ),
    "softmax": Op(
        ops.softmax,
        lambda x, axis: np.exp(x) / np.exp(x).sum(axis, keepdims=True),
        softmax_tangent,
        options=axes,
        takes=ARRAYS,
    ),
    "reshape": linear(ops.reshape, np.reshape, options=shapes, takes=ARRAYS),
    "transpose": linear(lambda x: x.T, np.transpose, takes=ARRAYS),
    "index": linear(lambda x, key: x[key], lambda x, key: x[key], options=keys, takes=ARRAYS),
    "concatenate": linear(
        ops.concatenate, lambda *x, axis: np.concatenate(x, axis), inputs=(2, 3), options=seams, takes=ARRAYS
    ),
    "matmul": Op(
        operator.matmul,
        np.matmul,
        lambda values, moves: moves[0] @ values[1] + values[0] @ moves[1],
        fits=multiplies,
        inputs=(2,),
        takes=ARRAYS,
    ),
    "linear": Op(
        ops.linear,
        lambda x, weight, *bias: x @ weight.T + sum(bias),
        layer_tangent,
        fits=is_layer,
        inputs=(2, 3),
        takes=ARRAYS,
    ),
}
# From Values to a Tensor.
SEAM = {
    "from_values": linear(
        lambda *values, shape: Tensor.from_values(np.array(values, dtype=object).reshape(shape).tolist()),
        lambda *values, shape: np.array(values).reshape(shape),
        inputs=(1, 2, 3),
        takes=(Value,),
        options=lambda *values: [{"shape": (len(values),)}, {"shape": (len(values), 1)}],
    )
}


# The machines.

seeds = st.integers(0, 2**32)
random_generators = seeds.map(np.random.default_rng)
mostly = st.integers(0, 5).map(lambda n: n < 5)
rarely = st.integers(0, 5).map(lambda n: n == 5)


def pick(random: np.random.Generator, choices: Sequence[Any]) -> Any:
    return choices[int(random.integers(len(choices)))]


def scalar(random: np.random.Generator) -> float:
    return int(random.integers(-16, 17)) / 8


def array(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    sizes = random.uniform(0.3, 2, size=shape)
    return np.asarray(sizes if random.integers(2) else sizes * random.choice([-1.0, 1.0], size=shape))


def another(random: np.random.Generator, leaf: Any) -> Any:
    """Another number for this leaf."""
    return scalar(random) if isinstance(leaf, Value) else array(random, leaf.shape)


class ValueGraphs(RuleBasedStateMachine):
    """The engine's nodes beside the oracle's record. A leaf that was assigned to has a line for each of its numbers.

    How a graph grows follows from one drawn seed, what is done with it is drawn: so graphs differ much, and hypothesis
    can leave out sweeps and resets from a failure while the graph stays.
    """

    ops: dict[str, Op] = POINTWISE

    def __init__(self) -> None:
        super().__init__()
        self.record: list[Step] = []
        self.nodes: list[Any] = []  # beside the lines of the record; bare numbers and arrays are constants
        self.live: list[int] = []  # the lines to compute from: all, but of a leaf only its latest
        self.direction: dict[Node, np.ndarray] = {}
        self.slope: dict[Node, float] = {}  # along its direction, for each node that must hold a gradient
        self.released: set[Node] = set()
        self.seed = self.attempts = 0

    def write(self, node: Any, step: Step) -> None:
        line = len(self.record)
        self.record.append(step)
        self.nodes.append(node)
        self.live.append(line)
        if isinstance(node, Value):
            self.direction[node] = np.ones(())
        elif isinstance(node, Tensor):
            self.direction.setdefault(node, np.random.default_rng(line).normal(size=node.shape))

    def nodes_of(self, lines: Sequence[int]) -> list[Any]:
        return [self.nodes[line] for line in lines]

    def leaves(self) -> list[int]:
        return [line for line in self.live if isinstance(self.nodes[line], Node) and not self.record[line].op]

    def spent(self) -> set[int]:
        """Lines whose sweep must be refused: a sweep released them or something that they were computed from."""
        spent, released = set(), {id(node) for node in self.released}
        for line, step in enumerate(self.record):
            if id(self.nodes[line]) in released or not spent.isdisjoint(step.inputs):
                spent.add(line)
        return spent

    # How a graph grows.

    def constant(self, random: np.random.Generator) -> Any:
        return pick(random, (scalar(random), int(random.integers(-3, 4))))

    def leaf(self, random: np.random.Generator) -> Any:
        return Value(scalar(random))

    def grow(self, times: int) -> None:
        for _ in range(times):
            self.attempts += 1
            random = np.random.default_rng([self.seed, self.attempts])
            kind = random.integers(24)
            if kind == 0 or len(self.leaves()) < 3:
                leaf = self.leaf(random)
                self.add(leaf, Step(np.array(leaf.data)), "leaf")
            elif kind == 1:
                constant = self.constant(random)
                self.add(constant, Step(np.array(constant, float)), "constant")
            else:
                self.compute(random)

    def add(self, node: Any, step: Step, name: str) -> None:
        given = ", ".join(f"x{line}" for line in step.inputs) if step.op else repr(step.value)
        note(f"x{len(self.record)} = {name}({given}){step.options or ''}")
        self.write(node, step)

    def compute(self, random: np.random.Generator) -> None:
        name = pick(random, [name for name, op in self.ops.items() for _ in range(op.inputs[-1])])
        op = self.ops[name]
        lines = self.choose_inputs(random, op)
        if not lines:
            return
        values = [self.record[line].value for line in lines]
        options = pick(random, op.options(*values))
        value = np.asarray(op.value(*values, **options))
        if value.size <= MOST_ELEMENTS and np.abs(value).max() <= LARGEST:
            self.add(op.run(*self.nodes_of(lines), **options), Step(value, op, tuple(lines), options), name)

    def choose_inputs(self, random: np.random.Generator, op: Op) -> list[int]:
        """Lines that `op` can take; none where nothing goes with those chosen first. Unused ones are the likeliest."""
        used = {line for step in self.record for line in step.inputs}
        avoided = self.spent() if random.integers(10) else set()
        chosen: list[int] = []
        count = pick(random, op.inputs)
        while len(chosen) < count:
            complete = len(chosen) + 1 == count
            candidates = [
                line for line in self.live if self.suits(op, [*chosen, line], complete) and line not in avoided
            ]
            if not candidates:
                return []
            chosen.append(pick(random, candidates + 3 * [line for line in candidates if line not in used]))
        return chosen

    def suits(self, op: Op, lines: Sequence[int], complete: bool) -> bool:
        """Whether `op` takes these inputs, up to here or, if `complete`, all that it gets."""
        nodes, values = self.nodes_of(lines), [self.record[line].value for line in lines]
        types = {type(node) for node in nodes}
        if not types.issubset(op.takes) or (Value in types and types & {Tensor, np.ndarray}):
            return False
        return not complete or (bool(types & {Value, Tensor}) and op.fits(*values) and len(op.options(*values)) > 0)

    # What a user does.

    @initialize(seed=seeds, data=st.data())
    def begin(self, seed: int, data: Any) -> None:
        self.seed = seed
        self.grow(15)
        self.sweep(data, True)

    @precondition(lambda self: len(self.record) < MOST_LINES)
    @rule(times=st.integers(1, 8), data=st.data(), keep_graph=mostly)
    def grow_and_sweep(self, times: int, data: Any, keep_graph: bool) -> None:
        self.grow(times)
        self.sweep(data, keep_graph)

    @rule(data=st.data(), keep_graph=mostly)
    def sweep(self, data: Any, keep_graph: bool) -> None:
        spent = set() if data.draw(rarely) else self.spent()
        inner = [line for line in self.live if self.record[line].op and line not in spent]
        # Its last lines are those that the most went into; a leaf is a root too.
        root = data.draw(st.sampled_from(inner[-3:] or self.leaves()) | st.sampled_from(inner + self.leaves()))
        seed = self.draw_seed(data, root)
        slopes = self.slopes_of(root, seed)
        if slopes is None:
            return
        note(f"sweep from x{root}, {keep_graph=}, {seed=}")
        refused = self.run_engine(self.nodes[root], seed, keep_graph)
        assert refused == any(node in self.released for node in slopes)
        if refused:
            # What a refused sweep has already added to the leaves is nobody's promise.
            self.start_again(reset=True)
            note(f"refused; a new graph on the same leaves, reset: {self.nodes}")
            return
        leaves = self.nodes_of(self.leaves())
        for node, slope in slopes.items():
            if node in leaves:
                self.slope[node] = self.slope.get(node, 0.0) + slope
            elif keep_graph or isinstance(self.nodes[root], Value):
                self.slope[node] = slope
            else:
                self.slope.pop(node, None)
                self.released.add(node)
        self.check()

    def draw_seed(self, data: Any, root: int) -> np.ndarray:
        return np.ones(())

    def slopes_of(self, root: int, seed: np.ndarray) -> dict[Node, float] | None:
        """The slope of sum(root * seed) along the direction of each node that root depends on; None if it is steep."""
        slopes = {}
        for node, direction in self.direction.items():
            start = {line: direction for line in range(root + 1) if self.nodes[line] is node}
            tangent = push(self.record[: root + 1], start).get(root)
            if tangent is not None:
                slopes[node] = float(np.sum(tangent * seed))
                if np.abs(tangent).max() > STEEPEST:
                    return None
        return slopes

    def run_engine(self, root: Any, seed: np.ndarray, keep_graph: bool) -> bool:
        """Sweep; return whether the engine refused to, because the graph was released."""
        before = seed.copy()
        try:
            if isinstance(root, Value):
                root.backward()
            else:
                root.backward(seed, keep_graph=keep_graph)
        except Exception as error:
            if "released this graph" in str(error):
                return True
            raise AssertionError(f"the sweep failed: {error!r}") from error
        np.testing.assert_array_equal(seed, before)
        return False

    @rule(data=st.data(), in_place=st.booleans())
    def reset(self, data: Any, in_place: bool) -> None:
        line = data.draw(st.sampled_from(self.leaves()))
        note(f"reset x{line}, {in_place=}")
        self.reset_gradient(self.nodes[line], in_place)
        self.check()

    def reset_gradient(self, leaf: Any, in_place: bool = False) -> None:
        if in_place and isinstance(leaf, Tensor) and leaf.grad is not None:
            leaf.grad[...] = 0
            self.slope[leaf] = 0.0
        else:
            leaf.grad = 0.0 if isinstance(leaf, Value) else None
            self.slope.pop(leaf, None)

    @rule(data=st.data(), random=random_generators)
    def assign(self, data: Any, random: np.random.Generator) -> None:
        """Give a leaf another number. What was computed from the old one keeps it, and its gradient flows on."""
        line = data.draw(st.sampled_from(self.leaves()))
        leaf = self.nodes[line]
        other = another(random, leaf)
        note(f"x{len(self.record)} = x{line}, its data assigned {other!r}")
        leaf.data = other
        self.live.remove(line)
        self.write(leaf, Step(np.array(other)))
        self.check()

    @precondition(lambda self: len(self.record) > MOST_LINES // 2)
    @rule(random=random_generators)
    def begin_next_graph(self, random: np.random.Generator) -> None:
        """Keep only the leaves and their gradients, and overwrite their numbers in place as an optimiser does."""
        self.start_again()
        for line, leaf in enumerate(self.nodes):
            other = another(random, leaf)
            if isinstance(leaf, Tensor):
                leaf.data[...] = other
            else:
                leaf.data = other
            self.record[line] = Step(np.array(other))
        note(f"a new graph on the same leaves: {self.nodes}")
        self.grow(12)
        self.check()

    def start_again(self, reset: bool = False) -> None:
        leaves, record, slope = self.nodes_of(self.leaves()), self.record, self.slope
        numbers = [record[line].value for line in self.leaves()]
        self.record, self.nodes, self.live, self.released = [], [], [], set()
        self.slope = {leaf: slope[leaf] for leaf in leaves if leaf in slope}
        self.direction = {leaf: self.direction[leaf] for leaf in leaves}
        for leaf, number in zip(leaves, numbers, strict=True):
            self.write(leaf, Step(number))
            if reset:
                self.reset_gradient(leaf)

    def check(self) -> None:
        """Every node holds the oracle's number and, unless a sweep released it, the oracle's gradient."""
        for line in self.live:
            node = self.nodes[line]
            if not isinstance(node, (Value, Tensor)):
                continue
            value, direction, name = self.record[line].value, self.direction[node], f"x{line}"
            assert np.shape(node.data) == value.shape, name
            assert np.allclose(node.data, value, TOLERANCE, TOLERANCE), name
            if node in self.slope:
                assert np.shape(node.grad) == value.shape, f"{name}.grad"
                projection = node.grad * direction
                scale = max(1.0, float(np.sum(np.abs(projection))))
                difference = abs(float(np.sum(projection)) - self.slope[node])
                assert difference <= TOLERANCE * scale, f"{name}.grad is off by {difference:.1e}"
            elif node in self.released:
                assert node.grad is None, f"{name}.grad"
            else:
                assert node.grad == (0.0 if isinstance(node, Value) else None), f"{name}.grad"


SHAPES = [(), (3,), (1, 3), (2, 1), (2, 3), (3, 2), (2, 1, 3)]


class TensorGraphs(ValueGraphs):
    """Tensors of several shapes, and Values to stack into more of them."""

    ops = POINTWISE | ARRAY | SEAM

    def constant(self, random: np.random.Generator) -> Any:
        return array(random, pick(random, SHAPES)) if random.integers(2) else super().constant(random)

    def leaf(self, random: np.random.Generator) -> Any:
        return Tensor(array(random, pick(random, SHAPES))) if random.integers(4) else super().leaf(random)

    def draw_seed(self, data: Any, root: int) -> np.ndarray:
        if isinstance(self.nodes[root], Value):
            return super().draw_seed(data, root)
        return np.asarray(data.draw(random_generators).normal(size=self.record[root].value.shape))


# What is claimed.


@pytest.mark.parametrize("machine", [ValueGraphs, TensorGraphs])
def test_every_sweep_of_a_random_graph_leaves_the_gradients_of_forward_mode(machine):
    run_state_machine_as_test(machine, settings=settings(max_examples=GRAPHS, stateful_step_count=STEPS))


# The machines, checked: each of these changes of one line is a bug that they must find.

SEARCH = settings(
    max_examples=200,
    stateful_step_count=STEPS,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    report_multiple_bugs=False,
)

SABOTAGES: dict[str, tuple[type[ValueGraphs], Any, str, str]] = {
    "rule off by 0.1 %": (ValueGraphs, Value.exp, "d_out * out,", "d_out * out * 1.001,"),
    "rule that takes the upstream gradient for 1": (ValueGraphs, Value.log, "d_out / x", "1 / x"),
    "leaf that forgets earlier sweeps": (ValueGraphs, Node.accumulate, "else self.grad + gradient", "else gradient"),
    "inner node that adds up sweeps": (
        ValueGraphs,
        backpropagate,
        "node.grad = d_out",
        "node.grad = (node.grad or 0) + d_out",
    ),
    "second path that replaces the first": (
        ValueGraphs,
        backpropagate,
        "arrived[birth] = arrived[birth] + gradient",
        "arrived[birth] = gradient",
    ),
    "third path that replaces the others": (
        ValueGraphs,
        backpropagate,
        "arrived[birth] += gradient",
        "arrived[birth] = gradient",
    ),
    "sweep that visits the oldest first": (
        ValueGraphs,
        backpropagate,
        "heapq.heappush(waiting, (-birth, parent))",
        "heapq.heappush(waiting, (birth, parent))",
    ),
    "sum made in a gradient that is only borrowed": (
        TensorGraphs,
        backpropagate,
        "arrived[birth] = arrived[birth] + gradient",
        "arrived[birth] += gradient",
    ),
    "leaf that keeps what it only borrowed": (
        TensorGraphs,
        Tensor.accumulate,
        ".array(gradient)",
        ".asarray(gradient)",
    ),
    "Tensor leaf that forgets earlier sweeps": (
        TensorGraphs,
        Tensor.accumulate,
        "self.grad += gradient",
        "self.grad[...] = gradient",
    ),
    "released node that passes for a leaf": (TensorGraphs, backpropagate, "None, (), _released", "None, (), None"),
    "array rule off by 0.1 %": (
        TensorGraphs,
        ops.multiply.reference,
        "sum_to(d_out * x, y)",
        "1.001 * sum_to(d_out * x, y)",
    ),
    "broadcasting that averages": (TensorGraphs, sum_to, "gradient.sum(", "gradient.mean("),
    "seam that is stitched backwards": (
        TensorGraphs,
        Tensor.from_values,
        "to_host(d_out).ravel()",
        "to_host(d_out).ravel()[::-1]",
    ),
    "array rule that is wrong where an element is taken twice": (
        TensorGraphs,
        ops.index.reference,
        "xp.add.at(d_x, key, d_out)",
        "d_x[key] = d_out",
    ),
}


def respelled(function: Any, line: str, other: str) -> Any:
    """The code of `function` with one line changed."""
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(line) == 1, f"{function.__qualname__} no longer says {line!r}; change this sabotage with it"
    namespace = dict(function.__globals__)
    exec(source.replace(line, other), namespace)
    changed = namespace[function.__name__]
    changed = getattr(changed, "reference", getattr(changed, "__func__", changed))
    return changed.__code__


@pytest.mark.parametrize("bug", SABOTAGES)
def test_machine_objects(bug, monkeypatch):
    machine, function, line, other = SABOTAGES[bug]
    function = getattr(function, "__func__", function)
    monkeypatch.setattr(function, "__code__", respelled(function, line, other))
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine, settings=SEARCH)


def test_machine_objects_to_a_product_off_by_a_thousandth(monkeypatch):
    def product(self: Value, other: Any) -> Value:
        x, y = self.data, other.data if isinstance(other, Value) else other
        parents = (self, other if isinstance(other, Value) else None)
        return Value(x * y, parents, lambda d_out: (d_out * y * 1.001, d_out * x))

    monkeypatch.setattr(Value, "__mul__", product)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(ValueGraphs, settings=SEARCH)
