"""Random graphs, grown, swept, reset and grown on, against an oracle that never goes backwards.

The oracle keeps a plain record of what was computed from what and pushes tangents forwards through it, by formulas of
its own: the slope of the root along a direction of a node must be the projection, on that direction, of the gradient
that the engine left there.
"""

from __future__ import annotations

import inspect
import textwrap
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.autograd.graph_machines import TensorGraphs, ValueGraphs
from tinygrad_chat import Tensor, Value, ops
from tinygrad_chat.autograd import backpropagate, backpropagate_arrays
from tinygrad_chat.autograd.sweep import deliver_to_leaf, rule_of
from tinygrad_chat.autograd.value import topological_order
from tinygrad_chat.ops.broadcasting import sum_to

# Graphs for each machine, by how many examples a test gets in the profiles of conftest.py.
GRAPHS = {10: 20, 25: 100, 500: 2000}.get(settings().max_examples, settings().max_examples)
STEPS = 20

if GRAPHS > 100:
    pytestmark = pytest.mark.timeout(600)


@pytest.mark.profile("ci")
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
    "rule off by 0.1 %": (ValueGraphs, Value.exp, "(out,)", "(out * 1.001,)"),
    "sweep that takes the upstream gradient for 1": (ValueGraphs, backpropagate, "d_out * local", "local"),
    "leaf that forgets earlier sweeps": (ValueGraphs, topological_order, "and node.parents:", "and node is not None:"),
    "inner node that adds up sweeps": (ValueGraphs, backpropagate, "node.grad = 0.0", "pass"),
    "path that replaces those before": (
        ValueGraphs,
        backpropagate,
        "parent.grad += d_out * local",
        "parent.grad = d_out * local",
    ),
    "sweep that visits the oldest first": (ValueGraphs, backpropagate, "reversed(nodes)", "nodes"),
    "order in which nodes are met": (ValueGraphs, topological_order, 'nodes.sort(key=attrgetter("birth"))', "pass"),
    "inner array that adds up sweeps": (
        TensorGraphs,
        backpropagate_arrays,
        "node.grad = None",
        "pass",
    ),
    "second array that replaces the first": (
        TensorGraphs,
        backpropagate_arrays,
        "parent.grad = parent.grad + gradient",
        "parent.grad = gradient",
    ),
    "third array that replaces the others": (
        TensorGraphs,
        backpropagate_arrays,
        "parent.grad += gradient",
        "parent.grad = gradient",
    ),
    "sum made in a gradient that is only borrowed": (
        TensorGraphs,
        backpropagate_arrays,
        "parent.grad = parent.grad + gradient",
        "parent.grad += gradient",
    ),
    "gradient lent for overwriting that a kept graph shows": (
        TensorGraphs,
        backpropagate_arrays,
        "if release and node.birth in unshared",
        "if node.birth in unshared",
    ),
    "gradient that waits in place of those before": (
        TensorGraphs,
        backpropagate_arrays,
        "parent.grad = gradient.plus(parent.grad, own=own)",
        "parent.grad = gradient.array()",
    ),
    "seam whose leaves forget earlier sweeps": (
        TensorGraphs,
        deliver_to_leaf,
        "leaf.grad += gradient",
        "leaf.grad = gradient",
    ),
    "seam that takes the upstream gradient for 1": (TensorGraphs, rule_of, "d_out * local", "local"),
    "leaf that keeps what it only borrowed": (
        TensorGraphs,
        Tensor.accumulate,
        '.array(gradient, dtype, order="C")',
        '.asarray(gradient, dtype, order="C")',
    ),
    "Tensor leaf that forgets earlier sweeps": (
        TensorGraphs,
        Tensor.accumulate,
        "self.grad += gradient",
        "self.grad[...] = gradient",
    ),
    "released node that passes for a leaf": (TensorGraphs, backpropagate_arrays, "None, RELEASED", "None, ()"),
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


@pytest.mark.profile("ci")
@pytest.mark.parametrize("bug", SABOTAGES)
def test_machine_objects(bug, monkeypatch):
    machine, function, line, other = SABOTAGES[bug]
    function = getattr(function, "__func__", function)
    monkeypatch.setattr(function, "__code__", respelled(function, line, other))
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine, settings=SEARCH)


def test_machine_objects_to_a_product_off_by_a_thousandth(monkeypatch):
    def product(self: Value, other: Any) -> Value:
        other = other if isinstance(other, Value) else Value(other)
        x, y = self.data, other.data
        return Value(x * y, (self, other), (y * 1.001, x))

    monkeypatch.setattr(Value, "__mul__", product)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(ValueGraphs, settings=SEARCH)
