"""cuBLAS's handles: each thread has its own, with its own stream and workspace, and leaves none behind."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from tests.cuda_on_cpu.device import DEVICE, standing_in
from tests.cuda_on_cpu.places import needs_compiler
from tinygrad_chat.kernels.cuda import matmul

THREADS = 3


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
        count_handles = matmul.load_library(DEVICE.xp).count_handles
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
