"""The stand-in's capture itself: nothing is computed meanwhile, a replay computes all of it, and what CUDA refuses is
refused."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.cuda_on_cpu import tape
from tests.cuda_on_cpu.device import DEVICE, standing_in
from tests.cuda_on_cpu.places import needs_compiler
from tinygrad_chat.backend import load_kernels
from tinygrad_chat.kernels.cuda.matmul import gemm
from tinygrad_chat.ops import relu

pytestmark = needs_compiler
xp = DEVICE.xp


@pytest.fixture(autouse=True)
def device() -> Iterator[None]:
    with standing_in():
        yield


def on_device(values: Any) -> Any:
    return xp.asarray(np.array(values, np.float32))


WORK = {
    "a sum": lambda x, out: out.__setitem__(..., x + 1),
    "a sum in place": lambda x, out: out.__iadd__(x),
    "a ufunc's method": lambda x, out: out.__setitem__(..., np.add.reduce(x, axis=0)),
    "a scattered sum": lambda x, out: xp.add.at(out, xp.argsort(x[0], kind="stable"), x),
    "a fill": lambda x, out: out.fill(3),
    "a view, written to": lambda x, out: out.reshape(-1)[1:3].__setitem__(..., x[0, 0]),
    "rows by their numbers": lambda x, out: out.__setitem__(..., x[xp.argsort(x[:, 0], kind="stable")]),
    "methods": lambda x, out: out.__setitem__(..., x.astype(np.int64).sum(axis=1, keepdims=True).clip(1, 3)),
    "functions": lambda x, out: out.__setitem__(..., xp.where(x > 2, xp.zeros((2, 2)), xp.stack([x[0], x[1]]))),
    "a copy by a function": lambda x, out: np.copyto(out, x),
    "what a function writes to": lambda x, out: xp.take(x, [1, 0], 0, out=out, mode="clip"),
    "a kernel": lambda x, out: out.__setitem__(..., load_kernels("cuda")[relu](x - 2)[0]),
    "a product, whose factors are the host's": lambda x, out: gemm(x, x, out, tf32=False, scale=2.0, add=True),
}


@pytest.mark.parametrize("work", WORK)
def test_work_is_not_done_while_it_is_captured_and_replayed_with_new_numbers(work: str):
    x, out = on_device([[1, 2], [3, 4]]), on_device([[5, 6], [7, 8]])
    with tape.capturing() as captured:
        WORK[work](x, out)
    np.testing.assert_array_equal(DEVICE.to_host(out), [[5, 6], [7, 8]])
    for values in ([[1, 2], [3, 4]], [[4, 1], [2, 5]]):
        again = on_device(values), out.copy()
        x[...] = again[0]
        captured.replay()
        WORK[work](*again)
        np.testing.assert_array_equal(DEVICE.to_host(out), DEVICE.to_host(again[1]))


REFUSED = {
    "a number for the host": float,
    "a copy to the host": DEVICE.to_host,
    "a mask": lambda x: x[x > 0],
    "a copy to the device": lambda x: xp.asarray(np.ones(2)),
    "a number sent to the device": lambda x: xp.array(1.0),
    "a buffer sent to the device": lambda x: DEVICE.send(np.ones((2, 2), np.float32), x),
    "a wait": lambda x: DEVICE.synchronize(),
    "CuPy's product": lambda x: x @ x,
    "CuPy's product, by name": lambda x: xp.dot(x, x),
    "CuPy's product, as a method": lambda x: x.dot(x),
    "a sum over products": lambda x: xp.einsum("ij,jk", x, x),
    "a method in place that is not captured": lambda x: x.sort(),
}


@pytest.mark.parametrize("work", REFUSED)
def test_what_cuda_or_cupy_refuse_is_refused_only_while_work_is_captured(work: str):
    x = on_device([[1, 2], [3, 4]])
    if work != "a number for the host":
        REFUSED[work](x)
    with tape.capturing(), pytest.raises(tape.CaptureError, match="not while a stream captures"):
        REFUSED[work](x)
    float(x[0, 0])


def test_memory_of_the_tape_holds_no_numbers_until_a_replay():
    with tape.capturing() as captured:
        made = xp.ones((2, 3), np.float32) * 2
        number = made.sum()
    assert np.isnan(DEVICE.to_host(made)).all()
    assert np.isnan(float(number))
    captured.replay()
    assert float(number) == 12


def test_memory_that_the_tape_does_not_own_must_still_be_there():
    x, out = on_device([1, 2]), on_device([0, 0])
    with tape.capturing() as captured:
        out[...] = x
    del x
    gc.collect()
    with pytest.raises(tape.CaptureError, match="memory that has been freed"):
        captured.replay()


def test_numbers_of_the_host_stay_as_they_were():
    out, rate = on_device([0, 0]), 2.0
    with tape.capturing() as captured:
        out += rate
    rate = 5.0
    captured.replay()
    assert DEVICE.to_host(out).tolist() == [2, 2]
