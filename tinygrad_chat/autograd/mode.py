"""What is in force while ops run: whether they are recorded, how they compute, who watches."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar

from tinygrad_chat.autograd.sweep import Rule
from tinygrad_chat.backend import Compute, Kernels, backend_of, default_compute, load_kernels

Method = TypeVar("Method", bound=Callable[..., Any])

Watcher = Callable[[Any, Sequence[Any]], Callable[[Any, Rule], Rule]]
"""(operation, inputs), before the op runs -> what is called with (out, rule) after it and returns the rule to use"""


class Mode(NamedTuple):
    """What is in force in a thread."""

    recording: bool = True
    kernels: Kernels | None = None  # instead of those of the compute in force
    watcher: Watcher | None = None


# Of a thread; one that is to go on as another does is started in a copy of its context.
_mode: ContextVar[Mode] = ContextVar("mode", default=Mode())  # noqa: B039 - immutable
_compute: ContextVar[Compute | None] = ContextVar("compute", default=None)  # apart, as every call of a model sets it

current_mode: Callable[[], Mode] = _mode.get
"""() -> what is in force in this thread"""


@contextmanager
def _switched(**settings: Any) -> Iterator[None]:
    before = _mode.set(_mode.get()._replace(**settings))
    try:
        yield
    finally:
        _mode.reset(before)


def recording() -> bool:
    """Return whether results remember what they were computed from, in this thread: not within `no_grad`."""
    return _mode.get().recording


def no_grad() -> Any:
    """Within this context, in this thread, results of ops remember nothing: for evaluation and sampling."""
    return _switched(recording=False)


@contextmanager
def computing_with(compute: Compute) -> Iterator[None]:
    """Within this context, in this thread, arrays of the compute's back end are computed on as it says."""
    before = _compute.set(compute)
    try:
        yield
    finally:
        _compute.reset(before)


def with_own_compute(method: Method) -> Method:
    """Let a method of an object that has a `compute` run within it."""

    @functools.wraps(method)
    def within(self: Any, *inputs: Any, **options: Any) -> Any:
        before = _compute.set(self.compute)  # a quarter of what `with computing_with(...)` takes
        try:
            return method(self, *inputs, **options)
        finally:
            _compute.reset(before)

    return within  # pyright: ignore[reportReturnType]


def compute_for(array: Any) -> Compute:
    """Return how `array` is computed on now: as the compute in force says, if that is of the array's back end."""
    backend, compute = backend_of(array), _compute.get()
    return compute if compute is not None and compute.backend is backend else default_compute(backend)


def kernels_of(name: str) -> Any:
    """Within this context, in this thread, ops run the kernels of that folder, whatever the compute in force says."""
    return _switched(kernels=load_kernels(name))


def reference_ops() -> Any:
    """Within this context, in this thread, every op runs its readable reference and no kernel."""
    return kernels_of("reference")


def find_kernel(replaced: Any, reference: Any, array: Any) -> Any:
    """Return the kernel to run on `array` instead of what it replaces, or `reference` where there is none."""
    kernels = _mode.get().kernels
    return (compute_for(array).kernel_table if kernels is None else kernels).get(replaced, reference)


def has_kernel(replaced: Any, array: Any) -> bool:
    """Return whether a kernel would run on `array` instead of what it replaces."""
    return find_kernel(replaced, None, array) is not None


def watched_ops(watcher: Watcher) -> Any:
    """Within this context, in this thread, `watcher` sees every op on nodes come and go, and may wrap its rule."""
    return _switched(watcher=watcher)
