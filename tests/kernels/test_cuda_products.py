"""Products, by cuBLAS's own choice of an algorithm and by plans, and cuBLAS's handles: each thread has one of its own,
with a stream and a workspace, and leaves none behind."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.cuda_on_cpu.device import DEVICE, standing_in
from tests.cuda_on_cpu.places import PLACES, needs_compiler, open_place
from tinygrad_chat.autograd import choosing_products
from tinygrad_chat.backend import ProductChoices, array_module
from tinygrad_chat.kernels.cuda import cublas, matmul

THREADS = 3

PRODUCTS = {
    "two matrices": lambda x: (x[0], x[1], x[2]),
    "of one row": lambda x: (x[0, :1], x[1], x[2, :1]),
    "of one column": lambda x: (x[0], x[1, :, :1], x[2, :, :1]),
    "of one number": lambda x: (x[0, :1, :1], x[1, :1, :1], x[2, :1, :1]),
    "the first transposed": lambda x: (x[0].T, x[1], x[2]),
    "the second transposed": lambda x: (x[0], x[1].T, x[2]),
    "both transposed": lambda x: (x[0].T, x[1].T, x[2]),
    "slices": lambda x: (x[0, 1:8, 2:6], x[1, :4, 3:], x[2, 2:9, :9]),
    "slices, transposed": lambda x: (x[0, 1:8, 2:6].T, x[1, :9, :7].T, x[2, :4, :9]),
    "neither rows nor columns dense": lambda x: (x[0, ::2, ::3], x[1, :4], x[2, :6]),
    "of rows in reverse": lambda x: (x[0, ::-1], x[1], x[2]),
    "a batch": lambda x: (x[:3], x[3:6], x[6:9]),
    "a batch, transposed": lambda x: (x[:3].swapaxes(1, 2), x[3:6], x[6:9]),
    "a batch with one matrix for all": lambda x: (x[:3], array_module(x).broadcast_to(x[3:4], (3, 12, 12)), x[6:9]),
    "heads of windows": lambda x: tuple(x[i : i + 6].reshape(2, 3, 12, 12) for i in (0, 6, 12)),
    "many heads of one window": lambda x: tuple(x[i : i + 6].reshape(1, 6, 12, 12) for i in (0, 6, 12)),
}
FAST_ENOUGH = {"float32": 1e-5, "tf32": 2e-3, "bfloat16": 1e-2}


@pytest.mark.profile("ci")
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("planned", [False, True], ids=["by cuBLAS", "by a plan"])
@pytest.mark.parametrize("add", [False, True], ids=["written", "added"])
@pytest.mark.parametrize("dtype", FAST_ENOUGH)
@pytest.mark.parametrize("product", PRODUCTS)
def test_products_are_those_of_float64(product: str, dtype: str, add: bool, planned: bool, place: str):
    real, choices = "float32" if dtype == "tf32" else dtype, ProductChoices()
    with open_place(place) as device, choosing_products(choices if planned else None):
        numbers = np.random.default_rng(0).normal(size=(18, 12, 12)).astype(np.float32)
        x: Any = device.xp.asarray(numbers).astype(real)
        left, right, out = PRODUCTS[product](x)
        whole = [device.to_host(each).astype(np.float64) for each in (left, right, out)]
        for again in range(2):
            wanted = 0.5 * whole[0] @ whole[1] + (whole[2] if add else 0)
            matmul.gemm(left, right, out, tf32=dtype == "tf32", scale=0.5, add=add)
            found = device.to_host(out).astype(np.float64)
            tolerance = FAST_ENOUGH[dtype] * (again + 1)
            np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=4 * tolerance)
            whole[2] = found
    if place == "host":  # a GPU's library may have no algorithm for a product
        assert any(choices.plans.values()) == planned


@needs_compiler
def test_threads_multiply_at_the_same_time_each_with_a_handle_and_a_stream_of_its_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(DEVICE.xp.cuda, "get_current_stream", lambda: SimpleNamespace(ptr=threading.get_ident()))
    meet = threading.Barrier(THREADS + 1)
    x = np.random.default_rng(0).normal(size=(THREADS, 9, 9)).astype(np.float32)
    out = np.full_like(x, np.nan)

    def multiply(i: int) -> None:
        factor, product = DEVICE.xp.asarray(x[i]), DEVICE.xp.empty((9, 9), np.float32)
        for _ in range(2):  # before all have a handle, and after
            matmul.gemm(factor, factor, product, tf32=False)
            meet.wait()
        out[i] = DEVICE.to_host(product)

    with standing_in():
        count_handles = cublas.load_library(DEVICE.xp).count_handles
        before = count_handles()
        threads = [threading.Thread(target=multiply, args=(i,)) for i in range(THREADS)]
        for thread in threads:
            thread.start()
        meet.wait(60)
        held = count_handles()
        meet.wait(60)
        for thread in threads:
            thread.join()
        assert (held, count_handles()) == (before + THREADS, before)
    np.testing.assert_allclose(out, x @ x, rtol=1e-5, atol=1e-5)
