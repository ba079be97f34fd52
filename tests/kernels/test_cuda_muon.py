"""Muon's kernels against the reference: stacks of matrices that lie anywhere in flat buffers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cuda_on_cpu.places import PLACES, open_place
from tests.kernels.test_cuda import TOLERANCE, drawn, moved
from tinygrad_chat.backend import Backend, load_kernels
from tinygrad_chat.kernels.cuda import muon
from tinygrad_chat.optim.muon import update_matrices
from tinygrad_chat.optim.polar_express import orthogonalize


@pytest.fixture(scope="module", params=PLACES)
def device(request: pytest.FixtureRequest) -> Iterator[Backend]:
    with open_place(request.param) as backend:
        yield backend


SCALARS = (0.9, 0.5, 0.3)  # momentum, rate, decay
GAP = 24  # elements between matrices: whole vectors, in which nothing may change


@dataclass
class Stack:
    """N matrices (R, K) in flat buffers, at spans with gaps around them, and averages of earlier steps."""

    spans: list[slice]
    data: np.ndarray
    gradient: np.ndarray
    mean: np.ndarray
    square: np.ndarray

    @classmethod
    def draw(cls, N: int, R: int, K: int, shift: int = 0) -> Stack:
        """Draw one whose gaps are vectors, but for `shift` elements at the beginning."""
        spans = [slice(begin := shift + GAP + n * (R * K + GAP), begin + R * K) for n in range(N)]
        data, gradient = drawn(2, spans[-1].stop + GAP)
        square = np.abs(drawn(N, *((R, 1) if R >= K else (1, K)))) / max(R, K)
        return cls(spans, data, gradient, drawn(N, R, K), square)

    def update(self, update: Any, place: Backend | None = None, copy: Any = None, **options: Any) -> list[np.ndarray]:
        """Return data, mean, square and, of type `copy`, the compute weights after an update on the host or a device;
        the gradient must still be what it was."""
        given = {name: getattr(self, name).copy() for name in ("data", "gradient", "mean", "square")}
        given["starts"] = np.array([span.start for span in self.spans])
        scalars, copied = np.array(SCALARS, np.float32), None if copy is None else self.data.astype(copy)
        if place is not None:
            given = {name: moved(place, x, np.float32) for name, x in given.items()}
            scalars, copied = moved(place, scalars, np.float32), moved(place, copied, copy)
            options = {name: moved(place, x, np.float32) for name, x in options.items()}
        *arrays, starts = given.values()
        update(*arrays, scalars, spans=self.spans, starts=starts, compute_weights=copied, **options)
        on_host = np.asarray if place is None else place.to_host
        np.testing.assert_array_equal(on_host(given["gradient"]), self.gradient)
        kept = [given[name] for name in ("data", "mean", "square")] + ([] if copy is None else [copied])
        return [np.asarray(on_host(x)) for x in kept]


def compare(device: Backend, stack: Stack, copy: Any = None, **options: Any) -> None:
    """Check an update on a device against the reference: the same numbers, and nothing written between matrices."""
    found = stack.update(load_kernels("cuda")[update_matrices], device, copy, **options)
    expected = stack.update(update_matrices, None, copy, **options)
    from_zeros = dataclasses.replace(stack, data=np.zeros_like(stack.data))
    steps = from_zeros.update(update_matrices, None, **options)[0]
    clear = (steps == 0) | (np.abs(steps) > TOLERANCE["float32"])  # of another, rounding says whether the weight decays
    for mine, reference, compared in zip(found[:3], expected[:3], (clear, True, True), strict=True):
        np.testing.assert_allclose(mine, np.where(compared, reference, mine), rtol=0, atol=TOLERANCE["float32"])
    if copy is not None:
        np.testing.assert_array_equal(found[3], found[0].astype(copy))
    outside = np.ones(stack.data.size, bool)
    for span in stack.spans:
        outside[span] = False
    np.testing.assert_array_equal(found[0][outside], stack.data[outside])


SHAPES = [
    (1, 24, 24),
    (3, 16, 40),  # vectors of bfloat16
    (3, 40, 16),
    (2, 12, 20),  # vectors of float32, but not of bfloat16
    (2, 7, 11),
    (3, 1, 9),
    (3, 9, 1),
    (2, 1, 1),
    (1, 300, 6),  # more lines than a block has threads
    (1, 6, 300),
    (2, 40, 1040),  # more columns than a block takes at once, in several chunks
]


@pytest.mark.profile("ci")
@pytest.mark.parametrize("copy", [None, "bfloat16"])
@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_an_update_agrees_with_its_reference_and_the_copy_follows(
    device: Backend, shape: tuple[int, int, int], shift: int, copy: str | None
):
    compare(device, Stack.draw(*shape, shift), copy, grad_scale=np.float32(0.25))
    compare(device, Stack.draw(*shape, shift), copy)


@pytest.mark.profile("ci")
@given(st.integers(1, 3), st.integers(1, 24), st.integers(1, 24), st.integers(0, 8))
def test_an_update_of_any_size_agrees_with_its_reference(device: Backend, N: int, R: int, K: int, shift: int):
    compare(device, Stack.draw(N, R, K, shift))


@pytest.mark.parametrize("shape", [(2, 16, 40), (2, 40, 16)], ids=str)
@pytest.mark.parametrize("size", [1.0, 1e-9])
def test_the_first_step_rows_of_zeros_and_tiny_numbers_take_the_references_floors(
    device: Backend, shape: tuple[int, int, int], size: float
):
    stack = Stack.draw(*shape)
    stack.mean[:], stack.square[:] = 0, 0
    gradients = [stack.gradient[span].reshape(shape[1:]) for span in stack.spans]
    for gradient in gradients:
        gradient *= size
        gradient[1], gradient[:, 2] = 0, 0
        gradient[3] *= 1e-6
        gradient[4] *= 1e-9
    gradients[1][:] = 0
    compare(device, stack)


@pytest.mark.parametrize("shape", [(2, 16, 40), (2, 40, 16)], ids=str)
@pytest.mark.parametrize("scale", [np.nan, np.inf, -np.inf])
def test_nothing_changes_where_the_scale_is_no_number(device: Backend, shape: tuple[int, int, int], scale: float):
    stack = Stack.draw(*shape)
    stack.gradient[:] = np.nan
    found = stack.update(load_kernels("cuda")[update_matrices], device, "bfloat16", grad_scale=np.float32(scale))
    before = stack.data, stack.mean, stack.square, stack.data.astype("bfloat16")
    for mine, old in zip(found, before, strict=True):
        np.testing.assert_array_equal(mine, old)


@pytest.mark.parametrize("shape", [(2, 16, 40), (2, 40, 16)], ids=str)
def test_the_mean_has_the_same_bits_where_a_matrix_does_not_begin_with_a_vector(
    device: Backend, shape: tuple[int, int, int]
):
    fitting, shifted = Stack.draw(*shape), Stack.draw(*shape, shift=1)
    for there, here in zip(shifted.spans, fitting.spans, strict=True):
        for name in ("data", "gradient"):
            getattr(shifted, name)[there] = getattr(fitting, name)[here]
    shifted.mean, shifted.square = fitting.mean, fitting.square
    wide, narrow = (stack.update(load_kernels("cuda")[update_matrices], device)[1] for stack in (fitting, shifted))
    np.testing.assert_array_equal(wide, narrow)


def orthogonal(device: Backend, x: np.ndarray, factors: Any = None) -> np.ndarray:
    """Return what the kernels make of a matrix or a stack; x must still be what it was."""
    there = moved(device, x.reshape(-1, *x.shape[-2:]), np.float32)
    found = muon.orthogonalize(there, (there * there).sum(axis=-1), factors=factors)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(device.to_host(there).reshape(x.shape), x)
    return device.to_host(found).reshape(x.shape)


@pytest.mark.parametrize("shape", [(24, 24), (16, 40), (40, 16), (3, 24, 40), (3, 40, 24)], ids=str)
def test_muons_products_agree_with_its_reference(device: Backend, shape: tuple[int, ...]):
    x = drawn(*shape)
    np.testing.assert_allclose(orthogonal(device, x), orthogonalize(x), rtol=0, atol=TOLERANCE["float32"])


@pytest.mark.parametrize("shape", [(24, 24), (16, 40), (40, 16), (3, 24, 40), (3, 40, 24)], ids=str)
def test_muons_products_round_the_factors_that_their_reference_rounds(device: Backend, shape: tuple[int, ...]):
    *stack, R, K = shape
    singular, real = np.geomspace(1, 0.1, min(R, K), dtype=np.float32), np.dtype("bfloat16")
    shares = []
    for _ in range(9):
        left, right = (np.linalg.qr(drawn(*stack, length, min(R, K)))[0] for length in (R, K))
        x = left * singular @ right.swapaxes(-1, -2)
        found = orthogonal(device, x, real)
        error, rounding = (np.linalg.norm(found - orthogonalize(x, factors=factors)) for factors in (real, None))
        assert rounding > 1e-2 * np.linalg.norm(found)
        shares.append(error / rounding)
    assert np.median(shares) < 0.2  # in some matrices, sums in another order round a few factors to a neighbour
