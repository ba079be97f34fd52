"""Every op of the catalogue, proven: by Values, by finite differences, by PyTorch, and dtype by dtype."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.catalogue import CATALOGUE, Case, Entry
from tinygrad_chat import Tensor, ops
from tinygrad_chat.autograd import Operation, kernels_of, reference_ops
from tinygrad_chat.autograd.check import check_exactly, check_numerically, rule_gradients
from tinygrad_chat.autograd.value import topological_order
from tinygrad_chat.backend import get_backend, load_kernels

KERNEL_SETS = [name for name in get_backend("numpy").kernel_sets if name == "numpy" or find_spec(name)]
KERNEL_TOLERANCE = 2e-5  # float32, relative to the largest element

every_op = pytest.mark.parametrize("entry", CATALOGUE.values(), ids=CATALOGUE.keys())
every_kernel = pytest.mark.parametrize(
    ("kernel_set", "entry"),
    [(name, e) for name in KERNEL_SETS for e in CATALOGUE.values() if e.op in load_kernels(name)],
    ids=lambda x: x if isinstance(x, str) else x.op.name,
)


def as_float32(case: Case) -> Case:
    def narrow(x: Any) -> Any:
        return x.astype(np.float32) if getattr(x, "dtype", None) == np.float64 else x

    return Case(tuple(map(narrow, case.inputs)), {name: narrow(x) for name, x in case.options.items()})


def value_and_gradients(entry: Entry, case: Case, d_out: Any) -> list[np.ndarray]:
    nodes = [x if x.dtype.kind in "iub" else Tensor(x) for x in case.inputs]
    out = entry.function(*nodes, **case.options)
    out.backward(d_out)
    return [out.data, *(node.grad for node in nodes if isinstance(node, Tensor))]


def dtypes(entry: Entry, case: Case, d_out: Any) -> set[Any]:
    """The types of the value and of what the rule itself returns: a Tensor would narrow a gradient to its own type."""
    gradients = rule_gradients(bound(entry, case), *case.inputs, d_out=d_out)
    value = value_and_gradients(entry, case, d_out)[0]
    return {value.dtype, *(gradient.dtype for gradient in gradients if gradient is not None)}


def draw_d_out(entry: Entry, case: Case) -> np.ndarray:
    return np.random.default_rng(1).normal(size=np.shape(entry.function(*case.inputs, **case.options)))


def test_every_public_op_has_an_entry():
    families = [
        importlib.import_module(f"{ops.__name__}.{family.name}") for family in pkgutil.iter_modules(ops.__path__)
    ]
    written = {op for family in families for op in vars(family).values() if isinstance(op, Operation)}
    assert {op.name for op in written} - set(ops.__all__) == set()
    assert written - {entry.op for entry in CATALOGUE.values()} == set()
    assert set(ops.__all__) - CATALOGUE.keys() == {"rotary_angles"}  # makes constants, has no gradient


@every_op
@given(st.data())
def test_rule_agrees_exactly_with_the_scalar_engine(entry, data):
    case = data.draw(entry.cases)
    with reference_ops():
        check_exactly(bound(entry, case), *case.inputs)


@every_op
@given(st.data())
def test_rule_agrees_with_finite_differences(entry, data):
    case = data.draw(entry.cases)
    with reference_ops():
        check_numerically(bound(entry, case), *case.inputs)


@every_op
@given(st.data())
def test_value_and_gradients_agree_with_pytorch(entry, data):
    torch = pytest.importorskip("torch")
    case = data.draw(entry.cases)
    d_out = draw_d_out(entry, case)
    with reference_ops():
        ours = value_and_gradients(entry, case, d_out)
    tensors = [torch.tensor(x, requires_grad=x.dtype.kind == "f") for x in case.inputs]
    out = entry.torch(*tensors, **case.options)
    out.backward(torch.as_tensor(d_out))
    theirs = [out.detach(), *(t.grad for t in tensors if t.requires_grad)]
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other.numpy(), rtol=1e-10, atol=1e-10)


@pytest.mark.profile("ci")
@every_op
@given(st.data())
def test_float32_stays_float32_in_value_and_gradients(entry, data):
    case = as_float32(data.draw(entry.cases))
    d_out = draw_d_out(entry, case).astype(np.float32)
    assert dtypes(entry, case, d_out) == {np.dtype(np.float32)}
    with reference_ops():
        assert dtypes(entry, case, d_out) == {np.dtype(np.float32)}


@pytest.mark.profile("ci")
@every_op
@given(st.data())
def test_gradients_have_their_inputs_shapes_and_inputs_stay_untouched(entry, data):
    case = data.draw(entry.cases)
    before = [x.copy() for x in case.inputs]
    _, *gradients = value_and_gradients(entry, case, draw_d_out(entry, case))
    assert [g.shape for g in gradients] == [x.shape for x in case.inputs if x.dtype.kind == "f"]
    for x, copy in zip(case.inputs, before, strict=True):
        np.testing.assert_array_equal(x, copy)


@pytest.mark.profile("ci")
@every_kernel
@given(st.data())
def test_kernel_agrees_with_its_reference(kernel_set, entry, data):
    case = as_float32(data.draw(entry.cases))
    d_out = draw_d_out(entry, case).astype(np.float32)
    with kernels_of(kernel_set):
        with_kernel = value_and_gradients(entry, case, d_out)
    with reference_ops():
        by_reference = value_and_gradients(entry, case, d_out)
    for kernel, reference in zip(with_kernel, by_reference, strict=True):
        scale = max(1.0, float(np.max(np.abs(reference), initial=0.0)))
        np.testing.assert_allclose(kernel, reference, rtol=0, atol=KERNEL_TOLERANCE * scale)


@pytest.mark.profile("ci")
@every_kernel
@given(st.data())
def test_a_node_is_named_after_its_op_whatever_kernel_computed_it(kernel_set, entry, data):
    case = data.draw(entry.cases)
    nodes = [x if x.dtype.kind in "iub" else Tensor(x) for x in case.inputs]
    with kernels_of(kernel_set):
        with_kernel = topological_order(entry.function(*nodes, **case.options))
    with reference_ops():
        by_reference = topological_order(entry.function(*nodes, **case.options))
    names = [node.op for node in with_kernel]
    assert entry.op.name in names
    assert names == [node.op for node in by_reference]


def bound(entry: Entry, case: Case) -> Any:
    """The entry's function with the case's options filled in, under its own name."""
    return functools.update_wrapper(functools.partial(entry.function, **case.options), entry.function)
