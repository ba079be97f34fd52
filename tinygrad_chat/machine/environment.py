"""The environment that produced a result: machine, versions, threads."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from typing import Any

import numpy as np
import threadpoolctl

from tinygrad_chat import __version__
from tinygrad_chat.backend import Compute
from tinygrad_chat.parallel import use_threads


def describe_environment(compute: Compute) -> dict[str, Any]:
    """Return the machine, the versions in use and how models compute, as JSON-serialisable values."""
    return {
        "tinygrad_chat": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": _version("numba"),
        "blas": describe_blas(),
        "backend": compute.backend.name,
        "kernels": compute.kernels,
        "dtype": compute.dtype,
        "threads": use_threads(),
        "device": compute.backend.device,
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        "arguments": sys.argv[1:],
    }


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def describe_blas() -> list[dict[str, Any]]:
    """Return the BLAS libraries that are loaded: name, version, kernels, threads."""
    return [
        {
            "library": info["internal_api"],
            "version": info["version"],
            "kernels": info.get("architecture"),
            "threads": info["num_threads"],
        }
        for info in threadpoolctl.threadpool_info()
        if info["user_api"] == "blas"
    ]
