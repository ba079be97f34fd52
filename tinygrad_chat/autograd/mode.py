"""What is in force while ops run: whether they are recorded, how they compute, who watches."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from tinygrad_chat.autograd.sweep import Rule
from tinygrad_chat.backend import Compute, Kernels, backend_of, default_compute, load_kernels

Method = TypeVar("Method", bound=Callable[..., Any])

Watcher = Callable[[Any, Sequence[Any], Mapping[str, Any]], Callable[[Any, Rule], Rule]]
"""(operation, inputs, options), before the op runs -> what is called with (out, rule) after it and returns the rule to
use"""


@dataclass(slots=True)
class Mode:
    """What is in force in a thread; never changed, but replaced."""

    recording: bool = True
    compute: Compute | None = None  # the model's whose method runs
    kernels: Kernels | None = None  # instead of any compute's
    watcher: Watcher | None = None

    def compute_for(self, array: Any) -> Compute:
        """Return the compute in force, if it is of the array's back end, or else the back end's default."""
        backend, compute = backend_of(array), self.compute
        return compute if compute is not None and compute.backend is backend else default_compute(backend)

    def kernels_for(self, array: Any) -> Kernels:
        """Return the kernels to run on `array`, by what they replace."""
        if self.kernels is not None:
            return self.kernels
        compute = self.compute
        if compute is not None and type(array) is compute.backend.array_type:  # the rule in short, as every op asks
            return compute.kernel_table
        return self.compute_for(array).kernel_table


# Of a thread; one that is to go on in the same mode is started in a copy of the context. There is one variable for all
# of it: those that were never set are looked for at length once any other is.
_mode: ContextVar[Mode] = ContextVar("mode", default=Mode())  # noqa: B039 - never changed

current_mode: Callable[[], Mode] = _mode.get
"""() -> what is in force in this thread"""


@contextmanager
def _switched(**settings: Any) -> Iterator[None]:
    before = _mode.set(dataclasses.replace(_mode.get(), **settings))
    try:
        yield
    finally:
        _mode.reset(before)


@contextmanager
def within(mode: Mode) -> Iterator[None]:
    """Within this context, in this thread, all is in force that was when `mode` was the current one."""
    before = _mode.set(mode)
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


def computing_with(compute: Compute) -> Any:
    """Within this context, in this thread, arrays of the compute's back end are computed on as it says."""
    return _switched(compute=compute)


def with_own_compute(method: Method) -> Method:
    """Let a method of an object that has a `compute` run within it."""

    @functools.wraps(method)
    def within(self: Any, *inputs: Any, **options: Any) -> Any:
        mode = _mode.get()
        if mode.compute is self.compute:  # called by another such method
            return method(self, *inputs, **options)
        # Spelled out: `with computing_with(...)` takes several times as long, which a small step would feel.
        before = _mode.set(Mode(mode.recording, self.compute, mode.kernels, mode.watcher))
        try:
            return method(self, *inputs, **options)
        finally:
            _mode.reset(before)

    return within  # pyright: ignore[reportReturnType]


def compute_for(array: Any) -> Compute:
    """Return how `array` is computed on now: as the compute in force says, or else by the back end's default."""
    return _mode.get().compute_for(array)


def kernels_of(name: str) -> Any:
    """Within this context, in this thread, ops run the kernels of that folder, whatever the compute in force says."""
    return _switched(kernels=load_kernels(name))


def reference_ops() -> Any:
    """Within this context, in this thread, every op runs its readable reference and no kernel."""
    return kernels_of("reference")


def find_kernel(replaced: Any, reference: Any, array: Any) -> Any:
    """Return the kernel to run on `array` instead of what it replaces, or `reference` where there is none."""
    return _mode.get().kernels_for(array).get(replaced, reference)


def has_kernel(replaced: Any, array: Any) -> bool:
    """Return whether a kernel would run on `array` instead of what it replaces."""
    return find_kernel(replaced, None, array) is not None


def watched_ops(watcher: Watcher) -> Any:
    """Within this context, in this thread, `watcher` sees every op on nodes come and go, and may wrap its rule."""
    return _switched(watcher=watcher)
