"""How a model computes: where its arrays live, which kernels its ops run, in which precision."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygrad_chat.backend.base import Backend
from tinygrad_chat.backend.registry import Kernels, get_backend, load_kernels, why_no_kernels
from tinygrad_chat.errors import BackendError


@dataclass(frozen=True)
class Compute:
    """A back end, the name of one of its kernel sets or "reference", and that of one of its precisions.

    A model is built with a Compute and keeps it, so models that compute differently can share a process.

    >>> Compute.choose("numpy", "reference").dtype
    'float32'
    """

    backend: Backend
    kernels: str
    dtype: str

    @classmethod
    def choose(cls, backend: str | Backend = "auto", kernels: str = "auto", dtype: str = "auto") -> Compute:
        """Return what the names stand for; auto is the fastest available, reference no kernels at all.

        Raises BackendError, in one line with the remedy, for what is not available, such as bfloat16 without the
        kernels that it needs.
        """
        if isinstance(backend, str):
            backend = get_backend(backend)
        kernels = _choose_kernels(backend, kernels)
        return cls(backend, kernels, _choose_dtype(backend, kernels, dtype))

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle by name: a back end is not copied."""
        return type(self).choose, (self.backend.name, self.kernels, self.dtype)

    @functools.cached_property
    def kernel_table(self) -> Kernels:
        """The kernels themselves, keyed by what they replace."""
        return load_kernels(self.kernels)

    @functools.cached_property
    def array_dtype(self) -> np.dtype[Any]:
        """The type of activations, and of the weights that they are computed with."""
        return np.dtype(self.dtype if self.dtype == "bfloat16" else np.float32)

    @property
    def tf32(self) -> bool:
        """Whether matrix products round their factors to 10 bits."""
        return self.dtype == "tf32"


@functools.cache
def default_compute(backend: Backend) -> Compute:
    """Return the Compute for arrays that belong to no model: the fastest kernels, in float32."""
    return Compute.choose(backend, dtype="float32")


def _choose_kernels(backend: Backend, name: str) -> str:
    if name == "auto":
        return next(each for each in backend.kernel_sets if why_no_kernels(each) is None)
    known = ("auto", "reference", *backend.kernel_sets)
    if name not in known:
        raise BackendError(f"--kernels: expected {', '.join(known)} with --backend {backend.name}, received {name}")
    reason = why_no_kernels(name)
    if reason is not None:
        raise BackendError(f"--kernels {name}: {reason}")
    return name


def _choose_dtype(backend: Backend, kernels: str, name: str) -> str:
    known = backend.dtypes
    if kernels == "reference":  # reference ops leave types to the array library
        known = tuple(dtype for dtype in known if dtype != "bfloat16")
    if name not in ("auto", *known):
        where = f"--backend {backend.name} --kernels {kernels} on {backend.device}"
        raise BackendError(f"--dtype: expected {', '.join(('auto', *known))} with {where}, received {name}")
    return known[0] if name == "auto" else name
