"""Machines that grow random graphs, sweep them, reset them and grow on, and hold every gradient to the oracle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.autograd.graph_oracle import ARRAY, POINTWISE, SEAM, Op, Step, push
from tinygrad_chat import Tensor, Value
from tinygrad_chat.autograd import Node

TOLERANCE = 1e-9
LARGEST = 100.0  # no number in a graph is larger,
STEEPEST = 1e3  # no slope of a root that is swept is steeper: so rounding stays far below the tolerance
MAX_ELEMENTS, MAX_LINES = 24, 40

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
        if value.size <= MAX_ELEMENTS and np.abs(value).max() <= LARGEST:
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

    @precondition(lambda self: len(self.record) < MAX_LINES)
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
        leaves = set(self.nodes_of(self.leaves()))
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

    @precondition(lambda self: len(self.record) > MAX_LINES // 2)
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
