"""Cross-entropy in slices of rows: seams between slices, the gradient in the logits' place, evaluation."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from tests.layouts import EXAMPLES
from tests.test_catalogue import KERNEL_SETS
from tinygrad_chat import Tensor, ops
from tinygrad_chat.autograd import kernels_of, no_grad, reference_ops
from tinygrad_chat.backend import load_kernels
from tinygrad_chat.errors import ShapeError

kernel = importlib.import_module("tinygrad_chat.kernels.numpy.cross_entropy")  # the module, not the function in it

N, V = 23, 11
random = np.random.default_rng(0)
logits = 3 * random.normal(size=(N, V))
targets = random.integers(-1, V, size=N)  # some do not count


@pytest.mark.parametrize("seed", [1.0, 0.25])
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("soft_cap", [None, 2.0])
@pytest.mark.parametrize("slice_length", [1, 2 * V, 5 * V + 3, 1 << 16])
@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
def test_slices_join_seamlessly(kernel_set, slice_length, soft_cap, overwrite, seed, monkeypatch):
    monkeypatch.setattr(kernel, "SLICE", slice_length)
    found, expected = Tensor(logits.copy()), Tensor(logits.copy())
    with kernels_of(kernel_set):
        loss = ops.cross_entropy(found, targets, soft_cap=soft_cap, overwrite=overwrite)
        loss.backward(seed)
    with reference_ops():
        reference = ops.cross_entropy(expected, targets, soft_cap=soft_cap)
        reference.backward(seed)
    np.testing.assert_allclose(loss.item(), reference.item(), rtol=1e-12)
    np.testing.assert_allclose(found.grad, expected.grad, rtol=1e-12, atol=1e-15)
    assert overwrite or np.array_equal(found.data, logits)


@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
def test_overwriting_takes_no_second_array_of_logits(kernel_set):
    x = logits.copy()
    _, backward = load_kernels(kernel_set)[ops.cross_entropy](x, targets, overwrite=True)
    assert np.shares_memory(backward(np.float64(1.0))[0], x)


@pytest.mark.parametrize("layout", EXAMPLES.values(), ids=EXAMPLES.keys())
@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
def test_logits_that_cannot_be_overwritten_in_one_piece_have_their_gradient_all_the_same(kernel_set, layout):
    found, expected = Tensor(layout.lay_out(logits)), Tensor(logits.copy())
    with kernels_of(kernel_set):
        ops.cross_entropy(found, layout.lay_out(targets), overwrite=True).backward()
    ops.cross_entropy(expected, targets).backward()
    np.testing.assert_allclose(found.grad, expected.grad, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("kernel_set", KERNEL_SETS)
def test_evaluation_leaves_the_logits_alone(kernel_set):
    x = Tensor(logits.copy())
    with no_grad(), kernels_of(kernel_set):
        loss = ops.cross_entropy(x, targets, overwrite=True)
    np.testing.assert_array_equal(x.data, logits)
    assert loss.item() == pytest.approx(ops.cross_entropy(Tensor(logits), targets).item())


@pytest.mark.parametrize("kernel_set", ["reference", *KERNEL_SETS])
def test_a_row_that_does_not_count_may_hold_anything(kernel_set):
    rows = np.array([[-np.inf, 1.0, 2.0], [0.0, 1.0, 2.0]])
    with kernels_of(kernel_set), np.errstate(all="ignore"):
        assert ops.cross_entropy(Tensor(rows), np.array([-1, 1])).item() == pytest.approx(1.4076, abs=1e-4)


@pytest.mark.parametrize("kernel_set", ["reference", *KERNEL_SETS])
def test_targets_are_whole_numbers_of_any_kind(kernel_set):
    with kernels_of(kernel_set):
        for kind in (np.uint8, np.uint64, np.int32):
            assert np.isfinite(ops.cross_entropy(Tensor(logits.copy()), np.abs(targets).astype(kind)).item())
        with pytest.raises(ShapeError, match="expected whole numbers as targets, received float64"):
            ops.cross_entropy(Tensor(logits.copy()), targets.astype(float))
