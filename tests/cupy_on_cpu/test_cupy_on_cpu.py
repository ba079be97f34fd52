"""What the stand-in promises, asked through CuPy: `python -m tests.cupy_on_cpu pytest -m gpu tests/cupy_on_cpu`."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

if "CUPY_ON_CPU_KERNELS" not in os.environ:
    pytest.skip("CuPy does not run on the CPU here", allow_module_level=True)

pytestmark = pytest.mark.gpu

cupy: Any = importlib.import_module("cupy")
cupyx: Any = importlib.import_module("cupyx")
FILL = cupy.RawKernel('extern "C" __global__ void fill(float* x, float value) { x[threadIdx.x] = value; }', "fill")


@pytest.fixture
def stream() -> Any:
    with cupy.cuda.Stream(non_blocking=True) as stream:
        yield stream


def test_work_is_put_off_until_something_waits(stream: Any):
    """So a copy that nobody waits for leaves what was there."""
    x, there = cupy.zeros(4, np.float32), cupyx.zeros_pinned(4, np.float32)
    FILL((1,), (4,), (x, np.float32(3)))
    x.get(out=there, blocking=False)
    assert there.tolist() == [0] * 4
    stream.synchronize()
    assert there.tolist() == [3] * 4


def test_a_stream_does_not_wait_for_another_unless_it_is_told_to(stream: Any):
    x, there = cupy.zeros(4, np.float32), cupyx.zeros_pinned(4, np.float32)
    stream.synchronize()
    FILL((1,), (4,), (x, np.float32(3)))
    other = cupy.cuda.Stream(non_blocking=True)
    x.get(out=there, stream=other, blocking=False)
    other.synchronize()
    assert there.tolist() == [0] * 4
    other.wait_event(stream.record())
    x.get(out=there, stream=other, blocking=False)
    other.synchronize()
    assert there.tolist() == [3] * 4


def test_a_graph_replays_work_with_the_numbers_it_was_captured_with(stream: Any):
    x, by = cupy.zeros(4, np.float32), cupy.ones(4, np.float32)
    x += by  # its kernel is loaded
    stream.begin_capture()
    x += by
    graph = stream.end_capture()
    assert x.get().tolist() == [1] * 4
    by.fill(10)
    graph.launch(stream)
    graph.launch(stream)
    assert x.get().tolist() == [21] * 4


def test_sorting_can_be_captured(stream: Any):
    x = cupy.asarray([3, 1, 2], np.int32)
    into = cupy.argsort(x)
    stream.begin_capture()
    into[...] = cupy.argsort(x)
    graph = stream.end_capture()
    x[...] = cupy.asarray([1, 3, 2], np.int32)
    graph.launch(stream)
    assert into.get().tolist() == [0, 2, 1]


ONE, runtime = np.ones(1, np.float32), cupy.cuda.runtime
REFUSED: dict[str, Callable[[Any, Any], Any]] = {
    "a copy of pageable memory": lambda x, on: runtime.memcpyAsync(x.data.ptr, ONE.ctypes.data, 4, 1, on.ptr),
    "an allocation": lambda x, on: runtime.malloc(1 << 20),
    "waiting for the stream": lambda x, on: runtime.streamSynchronize(on.ptr),
    "waiting for the device": lambda x, on: runtime.deviceSynchronize(),
    "waiting for an event": lambda x, on: cupy.cuda.Event().synchronize(),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_capture_refuses_ends_it(stream: Any, what: str):
    x = cupy.zeros(1, np.float32)
    stream.begin_capture(runtime.streamCaptureModeGlobal)
    with pytest.raises(runtime.CUDARuntimeError, match="cudaErrorStreamCaptureUnsupported"):
        REFUSED[what](x, stream)
    with pytest.raises(runtime.CUDARuntimeError, match="cudaErrorStreamCaptureInvalidated"):
        stream.end_capture()


def test_there_is_no_more_memory_than_the_device_has():
    with pytest.raises(cupy.cuda.memory.OutOfMemoryError):
        cupy.empty(runtime.memGetInfo()[1] + 1, np.uint8)


def test_what_is_allocated_holds_no_numbers():
    assert np.isnan(cupy.empty(1 << 20, np.float32).get()).all()


def test_a_launch_that_no_gpu_takes_is_refused():
    with pytest.raises(cupy.cuda.driver.CUDADriverError, match="cudaErrorInvalidValue"):
        FILL((1,), (2048,), (cupy.zeros(2048, np.float32), np.float32(1)))


FAILING = """
import cupy
code = 'extern "C" __global__ void half() { if (threadIdx.x < 16) __syncthreads(); }'
cupy.RawKernel(code, "half")((1,), (32,), ())
cupy.cuda.Device().synchronize()
"""


def test_a_kernel_that_does_what_cuda_leaves_undefined_is_an_error():
    """In a process of its own: after such an error, a device is of no more use to its process."""
    done = subprocess.run([sys.executable, "-c", FAILING], capture_output=True, text=True, check=False)
    assert "half: a barrier that not all threads of the block reach" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("cupy_backends.cuda.api.runtime.CUDARuntimeError: cudaErrorLaunch")
