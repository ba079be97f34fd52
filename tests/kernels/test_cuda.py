"""The CUDA kernels against the ops they replace: their own source, run by the host (tests/cuda_on_cpu) or by a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.catalogue import CATALOGUE, Case, Entry
from tests.cuda_on_cpu.compiler import COMPILER
from tests.cuda_on_cpu.device import DEVICE, standing_in
from tests.test_catalogue import as_float32, draw_d_out, value_and_gradients
from tinygrad_chat.autograd import reference_ops
from tinygrad_chat.backend import Backend, get_backend, load_kernels
from tinygrad_chat.errors import BackendError

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler to run kernels on the host with")


@pytest.fixture(
    scope="module", params=[pytest.param("host", marks=needs_compiler), pytest.param("gpu", marks=pytest.mark.gpu)]
)
def device(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Where kernels run: this machine's processor, whose arrays still refuse to meet NumPy's, or its GPU."""
    if request.param == "host":
        with standing_in():
            yield DEVICE
        return
    try:
        yield get_backend("cupy")
    except BackendError as error:
        pytest.skip(str(error))


def moved(device: Backend, x: Any, real: Any) -> Any:
    """Return an array on the device, of type `real` where it held floats, with memory of its own around it."""
    if not isinstance(x, (np.ndarray, np.generic)):
        return x
    values = device.xp.asarray(x).astype(real if x.dtype.kind == "f" else x.dtype)
    place = device.xp.empty(values.shape, values.dtype)
    place[...] = values
    return place


# float32 rounds to 6e-8, bfloat16 to 4e-3; the second is what an op's result and what it keeps are rounded to.
TOLERANCE = {"float32": 2e-5, "bfloat16": 3e-2}
TYPES = list(TOLERANCE)


def compare(device: Backend, entry: Entry, case: Case, real: str) -> None:
    """Check value and gradients on the device against the reference on the host, from the same rounded numbers."""

    def rounded(x: Any) -> Any:
        return x.astype(real).astype(np.float32) if getattr(x, "dtype", None) == np.float32 else x

    case = as_float32(case)
    case = Case(tuple(map(rounded, case.inputs)), case.options)
    d_out = rounded(np.asarray(draw_d_out(entry, case)).astype(np.float32))
    with reference_ops():
        expected = value_and_gradients(entry, case, d_out)
    there = Case(
        tuple(moved(device, x, real) for x in case.inputs),
        {name: moved(device, x, np.float32) for name, x in case.options.items()},
    )
    found = value_and_gradients(entry, there, moved(device, d_out, real))
    for mine, reference in zip(found, expected, strict=True):
        mine = device.to_host(mine).astype(np.float32)
        scale = max(1.0, float(np.max(np.abs(reference), initial=0.0)))
        np.testing.assert_allclose(mine, reference, rtol=0, atol=TOLERANCE[real] * scale)


KERNELS = [entry for entry in CATALOGUE.values() if entry.function in load_kernels("cuda")]


@pytest.mark.parametrize("real", TYPES)
@pytest.mark.parametrize("entry", KERNELS, ids=lambda entry: entry.function.name)
@given(st.data())
def test_a_kernel_agrees_with_its_op(device: Backend, entry: Entry, real: str, data: st.DataObject):
    compare(device, entry, data.draw(entry.cases), real)
