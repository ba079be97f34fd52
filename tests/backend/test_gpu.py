"""On a GPU: every op and a training step equal those on the host, in float64. Run with: pytest -m gpu.

Kernels and whole runs are compared by tests/kernels/test_cuda.py and tests/training/test_device.py, there and here.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.catalogue import CATALOGUE, Entry
from tests.test_catalogue import draw_d_out, value_and_gradients
from tinygrad_chat import GPT, ModelOptions
from tinygrad_chat.autograd import reference_ops
from tinygrad_chat.backend import Backend, Compute, get_backend, to_host
from tinygrad_chat.errors import BackendError
from tinygrad_chat.inference.generation import generate
from tinygrad_chat.optim import AdamW, clip_gradient
from tinygrad_chat.training.evaluation import evaluate

pytestmark = pytest.mark.gpu
SANITIZER = shutil.which("compute-sanitizer")


@pytest.fixture(scope="module")
def gpu() -> Backend:
    try:
        return get_backend("cupy")
    except BackendError as error:
        pytest.skip(str(error))


def on(backend: Backend, x: Any) -> Any:
    if isinstance(x, tuple):
        return tuple(on(backend, part) for part in x)
    return backend.xp.asarray(x) if isinstance(x, (np.ndarray, np.generic)) else x


@pytest.mark.parametrize("name", CATALOGUE)
@given(data=st.data())
def test_an_op_on_the_gpu_equals_it_on_the_host(gpu: Backend, name: str, data: st.DataObject):
    entry: Entry = CATALOGUE[name]
    case = data.draw(entry.cases)
    d_out = draw_d_out(entry, case)
    moved = type(case)(
        tuple(on(gpu, x) for x in case.inputs), {option: on(gpu, x) for option, x in case.options.items()}
    )
    with reference_ops():
        host = value_and_gradients(entry, case, d_out)
        device = value_and_gradients(entry, moved, on(gpu, np.asarray(d_out)))
    for expected, found in zip(host, device, strict=True):
        np.testing.assert_allclose(to_host(found), expected, rtol=1e-9, atol=1e-9)


def test_training_sampling_and_evaluation_on_the_gpu_equal_those_on_the_host(gpu: Backend):
    options = ModelOptions(layers=2, heads=2, width=16, context=8)
    tokens = np.random.default_rng(0).integers(0, 11, (4, 9))
    results = []
    for backend in (gpu, "numpy"):
        model = GPT(11, options, compute=Compute.choose(backend), dtype=np.float64)
        optimizer = AdamW(model.parameters())
        losses = []
        for _ in range(10):
            model.parameters().zero_gradient()
            loss = model.loss(tokens[:, :-1], tokens[:, 1:])
            loss.backward()
            clip_gradient(model.parameters(), 1.0)
            optimizer.step(0.01)
            losses.append(loss.item())
        text = list(generate(model, [1, 2], max_new_tokens=12, random=np.random.default_rng(3)))
        held_out = evaluate(model, tokens.ravel(), np.ones(11, int), batch_size=2).loss
        results.append((losses, text, held_out))
    (device, device_text, device_loss), (host, host_text, host_loss) = results
    np.testing.assert_allclose(device, host, rtol=1e-9)
    assert device_text == host_text
    assert device_loss == pytest.approx(host_loss, rel=1e-9)


@pytest.mark.skipif(SANITIZER is None, reason="no compute-sanitizer, NVIDIA's checker of memory")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_kernels_touch_no_memory_that_is_not_theirs_and_do_not_race(gpu: Backend, tool: str):
    assert SANITIZER is not None
    corners = ["-q", "-m", "gpu", "-k", "corners", "-o", "timeout=500", "tests/kernels/test_cuda.py"]
    # Without CuPy's pool, in which arrays lie beside each other and one that is overrun does not show.
    program = f"import cupy, pytest, sys; cupy.cuda.set_allocator(None); sys.exit(pytest.main({corners}))"
    command = [SANITIZER, "--tool", tool, "--error-exitcode", "9", sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert re.search(r"\d+ passed", done.stdout)
    assert "skipped" not in done.stdout
