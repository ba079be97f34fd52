"""The scalar engine, against calculus, against dual numbers, and alone in an empty folder."""

from __future__ import annotations

import itertools
import math
import operator
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_chat import Tensor, Value
from tinygrad_chat.autograd import value as value_module

# Every operator with its domain and its partial derivatives, as a textbook states them.

anywhere = st.floats(-3, 3)
positive = st.floats(0.1, 3)
away_from_zero = positive | positive.map(operator.neg)

BINARY: dict[str, tuple[Callable[[Any, Any], Any], Any, Any, Callable[[float, float], tuple[float, float]]]] = {
    "+": (operator.add, anywhere, anywhere, lambda x, y: (1, 1)),
    "-": (operator.sub, anywhere, anywhere, lambda x, y: (1, -1)),
    "*": (operator.mul, anywhere, anywhere, lambda x, y: (y, x)),
    "/": (operator.truediv, anywhere, away_from_zero, lambda x, y: (1 / y, -x / y**2)),
    "**": (operator.pow, positive, anywhere, lambda x, y: (y * x ** (y - 1), x**y * math.log(x))),
}
UNARY: dict[str, tuple[Any, Callable[[float], float], Callable[[float], float]]] = {
    "exp": (anywhere, math.exp, math.exp),
    "log": (positive, math.log, lambda x: 1 / x),
    "sqrt": (positive, math.sqrt, lambda x: 0.5 / math.sqrt(x)),
    "tanh": (anywhere, math.tanh, lambda x: 1 / math.cosh(x) ** 2),
    "relu": (away_from_zero, lambda x: max(x, 0.0), lambda x: 1.0 if x > 0 else 0.0),
    "__neg__": (anywhere, operator.neg, lambda x: -1.0),
}
every_sign = pytest.mark.parametrize("sign", BINARY)


def close(x: float) -> Any:
    return pytest.approx(x, rel=1e-12, abs=1e-12)


@every_sign
@given(st.data())
def test_operator_has_the_value_and_gradients_of_calculus(sign, data):
    operate, left, right, partials = BINARY[sign]
    x, y = data.draw(left), data.draw(right)
    a, b = Value(x), Value(y)
    out = operate(a, b)
    out.backward()
    assert out.data == close(operate(x, y))
    assert (a.grad, b.grad) == (close(partials(x, y)[0]), close(partials(x, y)[1]))


@every_sign
@given(st.data())
def test_number_on_either_side_counts_as_a_constant(sign, data):
    operate, left, right, partials = BINARY[sign]
    x, y = data.draw(left), data.draw(right)
    a, b = Value(x), Value(y)
    with_number_right, with_number_left = operate(a, y), operate(x, b)
    with_number_right.backward()
    with_number_left.backward()
    assert with_number_right.data == with_number_left.data == close(operate(x, y))
    assert (a.grad, b.grad) == (close(partials(x, y)[0]), close(partials(x, y)[1]))


@pytest.mark.parametrize("name", UNARY)
@given(st.data())
def test_function_has_the_value_and_gradient_of_calculus(name, data):
    numbers, function, derivative = UNARY[name]
    x = data.draw(numbers)
    a = Value(x)
    out = getattr(a, name)()
    out.backward()
    assert out.data == close(function(x))
    assert a.grad == close(derivative(x))


def test_relu_passes_no_gradient_at_zero():
    a = Value(0.0)
    a.relu().backward()
    assert a.grad == 0


@pytest.mark.parametrize(("base", "d_base"), [(-2.0, 12.0), (0.0, 0.0)])
def test_power_of_a_base_that_has_no_logarithm_is_differentiated_for_the_base_alone(base, d_base):
    x, exponent = Value(base), Value(3)
    (x**exponent).backward()
    assert (x.grad, exponent.grad) == (d_base, 0)


def test_zeroth_power_has_gradient_zero_at_zero():
    x = Value(0.0)
    (x**0).backward()
    assert x.grad == 0


def test_other_types_are_refused():
    for operate in (operator.add, operator.sub, operator.mul, operator.truediv):
        with pytest.raises(TypeError):
            operate(Value(1.0), "2")
        with pytest.raises(TypeError):
            operate("2", Value(1.0))


# Graphs.


@dataclass
class Dual:
    """A number and its derivative, carried forwards: an oracle that knows no graph."""

    number: float
    slope: float

    def __add__(self, other: Dual) -> Dual:
        return Dual(self.number + other.number, self.slope + other.slope)

    def __sub__(self, other: Dual) -> Dual:
        return Dual(self.number - other.number, self.slope - other.slope)

    def __mul__(self, other: Dual) -> Dual:
        return Dual(self.number * other.number, self.slope * other.number + self.number * other.slope)


Program = Sequence[tuple[Callable[[Any, Any], Any], int, int]]
programs = st.lists(
    st.tuples(st.sampled_from([operator.add, operator.sub, operator.mul]), st.integers(0, 20), st.integers(0, 20)),
    min_size=1,
    max_size=12,
)


def run(program: Program, leaves: Sequence[Any]) -> Any:
    results = list(leaves)
    for operate, first, second in program:
        results.append(operate(results[first % len(results)], results[second % len(results)]))
    return results[-1]


@given(programs, st.lists(st.floats(-1, 1), min_size=3, max_size=3))
def test_any_graph_agrees_with_dual_numbers(program, numbers):
    leaves = [Value(number) for number in numbers]
    run(program, leaves).backward()
    for position, leaf in enumerate(leaves):
        duals = [Dual(number, float(k == position)) for k, number in enumerate(numbers)]
        assert leaf.grad == pytest.approx(run(program, duals).slope, rel=1e-9, abs=1e-9)


def test_paths_that_part_and_meet_add_up():
    x = Value(3.0)
    left, right = x * 2, x * x
    (left * right + x).backward()
    assert x.grad == 6 * 3.0**2 + 1


def test_second_sweep_adds_up_on_leaves_and_replaces_on_inner_nodes():
    x = Value(3.0)
    inner = x * x
    out = inner * 2
    out.backward()
    out.backward()
    assert (x.grad, inner.grad, out.grad) == (24, 2, 1)


def test_two_results_add_up_on_the_leaves_that_they_share():
    a, b = Value(2.0), Value(5.0)
    shared = a * b
    first, second = shared * 3, shared + a
    first.backward()
    second.backward()
    assert (a.grad, b.grad) == (3 * 5 + 5 + 1, 3 * 2 + 2)
    assert shared.grad == 1  # of the latest sweep


@pytest.mark.profile("ci")
def test_chain_of_100_000_nodes_works():
    x = Value(0.0)
    out = x
    for _ in range(100_000):
        out = out + 1
    out.backward()
    assert (out.data, x.grad) == (100_000, 1)


def test_work_is_linear_in_nodes_though_paths_double_at_each():
    visits = 0

    class Counted(float):
        def __rmul__(self, d_out: float) -> float:
            nonlocal visits
            visits += 1
            return d_out

    doubled = x = Value(1.0)
    for _ in range(60):
        doubled = Value(2 * doubled.data, (doubled, doubled), (Counted(1), Counted(1)))
    doubled.backward()
    assert (x.grad, visits) == (2**60, 2 * 60)


# What else Values are asked for.


def test_comparisons_look_at_the_numbers():
    small, large = Value(1.0), Value(2.0)
    assert small < large
    assert small <= 1.0
    assert large > 1
    assert large >= small
    assert not small > large
    assert not large < 2
    assert max([small, large, Value(0.0)]) is large


def test_values_of_one_number_are_different_members_of_a_set():
    a, b = Value(1.0), Value(1.0)
    assert a != b
    assert len({a, b, a}) == 2
    assert {a: "a", b: "b"}[b] == "b"


@pytest.mark.parametrize("sign", BINARY)
def test_drawer_finds_the_sign_and_the_operands(sign):
    a, b = Value(2.0), Value(3.0)
    out = BINARY[sign][0](a, b)
    assert (out._op, out._prev) == (sign, {a, b})


def test_drawer_finds_functions_by_name_and_nothing_at_leaves():
    x = Value(1.0, label="x")
    assert [getattr(x, name)()._op for name in ("exp", "log", "sqrt", "tanh", "relu")] == [
        "exp",
        "log",
        "sqrt",
        "tanh",
        "relu",
    ]
    assert (-x)._op == "-"
    assert (x._op, x._prev, x.label) == ("", set(), "x")


def test_drawer_may_look_at_a_graph_that_a_sweep_has_released():
    inner = Value(2.0) * 3
    Tensor.from_values([inner]).sum().backward()
    assert inner._prev == set()
    assert isinstance(inner._op, str)


def test_file_runs_alone_on_the_standard_library(tmp_path):
    shutil.copy(value_module.__file__, tmp_path / "value.py")
    program = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import doctest, value
result = doctest.testmod(value)
assert result.attempted and not result.failed, result
assert value.__file__.startswith({str(tmp_path)!r})
assert "numpy" not in sys.modules and "tinygrad_chat" not in sys.modules
"""
    isolated = [sys.executable, "-I", "-S", "-c", program]
    finished = subprocess.run(isolated, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert [path.name for path in Path(tmp_path).iterdir() if path.is_file()] == ["value.py"]


# Programs in the dialects of micrograd and microgpt, on nothing but what those two offer.


def test_program_written_for_micrograd_learns_xor():
    numbers = random.Random(1)

    def neuron(inputs: int) -> list[Value]:
        return [Value(numbers.uniform(-1, 1), label=f"w{k}") for k in range(inputs + 1)]

    hidden, final = [neuron(2) for _ in range(6)], neuron(6)
    parameters = [weight for weights in [*hidden, final] for weight in weights]

    def score(x: float, y: float) -> Value:
        activations = [(a * x + b * y + c).tanh() for a, b, c in hidden]
        return sum((w * h for w, h in zip(final, activations, strict=False)), final[-1])

    examples = [(-1, -1, -1), (-1, 1, 1), (1, -1, 1), (1, 1, -1)]
    for _ in range(100):
        losses = [(1 + -sign * score(x, y)).relu() for x, y, sign in examples]
        penalty = 1e-4 * sum(weight**2 for weight in parameters)
        loss: Any = sum(losses) / len(losses) + penalty
        for weight in parameters:
            weight.grad = 0
        loss.backward()
        for weight in parameters:
            weight.data -= 0.3 * weight.grad
    assert all(score(x, y).data * sign > 0 for x, y, sign in examples)


def test_program_written_for_microgpt_learns_a_bigram():
    numbers = random.Random(1)
    text = "abcabcabc"
    letters = sorted(set(text))
    pairs = [(letters.index(now), letters.index(after)) for now, after in itertools.pairwise(text)]
    table = [[Value(numbers.gauss(0, 0.1)) for _ in letters] for _ in letters]
    hidden = [[Value(numbers.gauss(0, 1)) for _ in letters] for _ in letters]
    parameters = [p for row in table + hidden for p in row]

    def probabilities(token: int) -> list[Value]:
        features = [p.relu() for p in hidden[token]]
        logits = [p + f for p, f in zip(table[token], features, strict=True)]
        largest = max(logit.data for logit in logits)
        exponentials = [(logit - largest).exp() for logit in logits]
        total = sum(exponentials)
        return [e / total for e in exponentials]

    for _ in range(60):
        losses = [-probabilities(now)[after].log() for now, after in pairs]
        loss: Any = (1 / len(losses)) * sum(losses)
        loss.backward()
        for p in parameters:
            p.data -= 2.0 * p.grad
            p.grad = 0
    assert all(probabilities(now)[after].data > 0.9 for now, after in pairs)


inf, nan = math.inf, math.nan
CORNERS: list[tuple[str, Callable[..., Value], tuple[float, ...], float, tuple[float, ...]]] = [
    # what, inputs -> value and gradients: those of IEEE 754, where Python raises errors too
    ("1 / 0", operator.truediv, (1.0, 0.0), inf, (inf, -inf)),
    ("1 / -0", operator.truediv, (1.0, -0.0), -inf, (-inf, -inf)),
    ("0 / 0", operator.truediv, (0.0, 0.0), nan, (inf, nan)),
    ("tiny divisor", operator.truediv, (1e-100, 1e-200), 1e100, (1e200, -1e300)),  # whose square is 0
    ("overflow of *", operator.mul, (1e200, 1e200), inf, (1e200, 1e200)),
    ("overflow of **", operator.pow, (1e200, 2.0), inf, (2e200, inf)),
    ("overflow below 0", operator.pow, (-1e200, 3.0), -inf, (inf, 0.0)),
    ("2 ** 1025", operator.pow, (2.0, 1025.0), inf, (inf, inf)),
    ("0 ** 0.5", operator.pow, (0.0, 0.5), 0.0, (inf, 0.0)),
    ("0 ** 0", operator.pow, (0.0, 0.0), 1.0, (0.0, 0.0)),
    ("inf ** 0", operator.pow, (inf, 0.0), 1.0, (0.0, inf)),
    ("nan ** 0", operator.pow, (nan, 0.0), 1.0, (0.0, nan)),
    ("0 ** -1", operator.pow, (0.0, -1.0), inf, (-inf, 0.0)),
    ("-0 ** -1", operator.pow, (-0.0, -1.0), -inf, (-inf, 0.0)),
    ("-8 ** 0.5", operator.pow, (-8.0, 0.5), nan, (nan, 0.0)),
    ("exp of much", Value.exp, (1000.0,), inf, (inf,)),
    ("log 0", Value.log, (0.0,), -inf, (inf,)),
    ("log -0", Value.log, (-0.0,), -inf, (-inf,)),
    ("log -2", Value.log, (-2.0,), nan, (-0.5,)),
    ("sqrt 0", Value.sqrt, (0.0,), 0.0, (inf,)),
    ("sqrt -1", Value.sqrt, (-1.0,), nan, (nan,)),
    ("sqrt inf", Value.sqrt, (inf,), inf, (0.0,)),
    ("tanh of much", Value.tanh, (-750.0,), -1.0, (0.0,)),
    ("relu -0", Value.relu, (-0.0,), 0.0, (0.0,)),
    ("relu nan", Value.relu, (nan,), nan, (1.0,)),
    ("relu -inf", Value.relu, (-inf,), 0.0, (0.0,)),
]


@pytest.mark.parametrize(
    ("compute", "numbers", "value", "gradients"), [row[1:] for row in CORNERS], ids=[row[0] for row in CORNERS]
)
def test_a_corner_has_the_value_and_gradients_of_ieee_arithmetic(compute, numbers, value, gradients):
    inputs = [Value(number) for number in numbers]
    out = compute(*inputs)
    out.backward()
    assert out.data == pytest.approx(value, nan_ok=True)
    assert tuple(x.grad for x in inputs) == pytest.approx(gradients, nan_ok=True)


NUMBERS = [0.0, 5e-324, 1e-200, 0.5, 1.0, 2.0, 3.0, 20.0, 750.0, 1e200, sys.float_info.max, inf]
NUMBERS = [sign * number for number in NUMBERS for sign in (1.0, -1.0)] + [nan]


@pytest.mark.parametrize("name", [*BINARY, *UNARY])
def test_at_every_corner_values_and_gradients_are_pytorchs(name):
    torch = pytest.importorskip("torch")
    compute = BINARY[name][0] if name in BINARY else operator.methodcaller(name)
    for numbers in itertools.product(NUMBERS, repeat=2 if name in BINARY else 1):
        inputs = [Value(number) for number in numbers]
        tensors = [torch.tensor(number, dtype=torch.float64, requires_grad=True) for number in numbers]
        out, expected = compute(*inputs), compute(*tensors)
        out.backward()
        expected.backward()
        found = [out.data, *(x.grad for x in inputs)]
        wanted = [expected.item(), *(x.grad.item() for x in tensors)]
        if name == "**" and numbers[0] <= 0:
            wanted[2] = 0.0  # the exponent's gradient, which for a base below 0 is nan in PyTorch
        assert found == pytest.approx(wanted, rel=1e-14, abs=1e-15, nan_ok=True), numbers


@pytest.mark.parametrize(("chosen", "kept"), [(700, 10_000), (0, 0), (50_000, 50_000)])
def test_import_lets_the_collector_run_less_often_but_respects_what_a_program_chose(chosen: int, kept: int):
    program = (
        f"import gc; gc.set_threshold({chosen}, 7, 5); import tinygrad_chat.autograd.value; print(gc.get_threshold())"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == f"({kept}, 7, 5)"
