"""Where the tests of CUDA kernels run them: on the host, whose stand-in refuses what a GPU would, or on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.cuda_on_cpu.compiler import COMPILER
from tests.cuda_on_cpu.device import DEVICE, standing_in
from tinygrad_chat.backend import Backend, get_backend
from tinygrad_chat.errors import BackendError

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler to run kernels on the host with")
PLACES = [pytest.param("host", marks=needs_compiler), pytest.param("gpu", marks=pytest.mark.gpu)]
HOSTS = {"host": "80", "host with wgmma": "90"}
"""Places on the host, and the compute capabilities that they stand in for."""


@contextmanager
def open_place(name: str) -> Iterator[Backend]:
    """Provide the back end of a place; skip the test where there is no GPU."""
    if name in HOSTS:
        with standing_in(compute_capability=HOSTS[name]):
            yield DEVICE
        return
    try:
        backend = get_backend("cupy")
    except BackendError as error:
        pytest.skip(str(error))
    yield backend
