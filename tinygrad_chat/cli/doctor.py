"""`tgc doctor`."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator

from tinygrad_chat import __version__
from tinygrad_chat.cli.table import open_console, print_facts
from tinygrad_chat.formatting import memory_size


def doctor() -> None:
    """Show what this machine has for training, and what to install for more."""
    import os
    from importlib import metadata
    from importlib.util import find_spec

    import numpy as np

    from tinygrad_chat.backend import Compute, get_backend
    from tinygrad_chat.backend.cupy_backend import advice, cupy_wheels, driver_cuda_version, why_no_bfloat16
    from tinygrad_chat.backend.registry import why_slower
    from tinygrad_chat.errors import BackendError
    from tinygrad_chat.machine.environment import describe_blas
    from tinygrad_chat.parallel import use_threads

    driver, fastest = driver_cuda_version(), Compute.choose()
    try:
        gpu, problem = get_backend("cupy").device, None
    except BackendError as error:
        gpu, problem = "none usable", str(error)
    rows = [
        ("tinygrad_chat", __version__),
        ("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        ("NumPy", np.__version__),
        *(
            ("BLAS", f"{blas['library']} {blas['version']}, {blas['kernels']} kernels, {blas['threads']} threads")
            for blas in describe_blas()
        ),
        ("processors", str(os.cpu_count())),
        ("Numba", metadata.version("numba") if find_spec("numba") else "not installed"),
        ("CuPy", ", ".join(cupy_wheels()) or "not installed"),
        ("NVIDIA driver", f"for CUDA {driver // 1000}.{driver % 1000 // 10}" if driver else "none"),
        ("GPU", gpu),
        ("--backend auto", fastest.backend.name),
        ("--kernels auto", fastest.kernels),
        ("--dtype auto", fastest.dtype),
        ("--threads", str(use_threads())),
        *_ranks(),
    ]
    print_facts(open_console(sys.stdout), rows)
    missing = [f"For a GPU: {advice()}"] if problem else []
    if problem is None and why_no_bfloat16() is not None:
        missing.append(f"For bfloat16: {why_no_bfloat16()}")
    on_host = Compute.choose("numpy")
    if on_host.kernels != on_host.backend.kernel_sets[0]:
        remedy = why_slower(on_host.backend, on_host.kernels) or "pip install 'tinygrad-chat[fast]'"
        missing.append(f"For faster training on the CPU: {remedy}")
    print("\n" + ("\n".join(missing) or "Nothing is missing."))


def _ranks() -> Iterator[tuple[str, str]]:
    """Yield which MPI is installed, and how fast two ranks exchange a gradient on this machine."""
    from tinygrad_chat.errors import BackendError, TinygradChatError
    from tinygrad_chat.parallel.bandwidth import measured_bandwidth
    from tinygrad_chat.parallel.mpi import describe_mpi

    try:
        yield "MPI", describe_mpi()
        yield "two ranks", f"exchange {memory_size(measured_bandwidth())} of gradients per second"
    except BackendError:
        yield "MPI", "not installed: pip install 'tinygrad-chat[mpi]' enables training in several processes"
    except TinygradChatError as error:
        yield "two ranks", str(error)
