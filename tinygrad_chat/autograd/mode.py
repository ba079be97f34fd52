"""The mode in which ops run: whether they are recorded, how they are computed, who watches."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from tinygrad_chat.autograd.sweep import Rule
from tinygrad_chat.backend import Compute, Kernels, ProductChoices, backend_of, default_compute, load_kernels

Method = TypeVar("Method", bound=Callable[..., Any])

Watcher = Callable[[Any, Sequence[Any], Mapping[str, Any]], Callable[[Any, Rule], Rule]]
"""(operation, inputs, options) -> callback. Called before the op runs; the callback gets (out, rule) after it and
returns the rule to use."""


@dataclass(slots=True)
class Mode:
    """The mode of a thread; never changed in place, only replaced."""

    recording: bool = True
    compute: Compute | None = None  # of the model whose method is running
    kernels: Kernels | None = None  # override those of any compute
    watcher: Watcher | None = None
    products: ProductChoices | None = None  # of a device; None: its library chooses an algorithm each time

    def compute_for(self, array: Any) -> Compute:
        """Return the compute in force if it belongs to the array's back end, else that back end's default."""
        backend, compute = backend_of(array), self.compute
        return compute if compute is not None and compute.backend is backend else default_compute(backend)

    @property
    def is_plain(self) -> bool:
        """Whether ops run as their compute says, and nobody watches: a CUDA graph of them may be replayed instead."""
        return self.kernels is None and self.watcher is None

    def kernels_for(self, array: Any) -> Kernels:
        """Return the kernels to run on `array`, keyed by what they replace."""
        if self.kernels is not None:
            return self.kernels
        compute = self.compute
        if compute is not None and type(array) is compute.backend.array_type:  # a shortcut: every op calls this
            return compute.kernel_table
        return self.compute_for(array).kernel_table


# Per thread; to inherit the mode, start a thread in a copy of the context. One variable holds all of it: looking up a
# context variable that was never set is slow once any other has been set.
_mode: ContextVar[Mode] = ContextVar("mode", default=Mode())  # noqa: B039 - never changed

current_mode: Callable[[], Mode] = _mode.get
"""() -> the mode in force in this thread"""


@contextmanager
def _switched(**settings: Any) -> Iterator[None]:
    before = _mode.set(dataclasses.replace(_mode.get(), **settings))
    try:
        yield
    finally:
        _mode.reset(before)


@contextmanager
def within(mode: Mode) -> Iterator[None]:
    """Put `mode` in force within this context, in this thread."""
    before = _mode.set(mode)
    try:
        yield
    finally:
        _mode.reset(before)


def recording() -> bool:
    """Return whether ops in this thread record the graph: not within `no_grad`."""
    return _mode.get().recording


def no_grad() -> Any:
    """Stop recording the graph within this context, in this thread: for evaluation and sampling."""
    return _switched(recording=False)


def computing_with(compute: Compute) -> Any:
    """Use `compute` for arrays of its back end within this context, in this thread."""
    return _switched(compute=compute)


def with_own_compute(method: Method) -> Method:
    """Decorate a method so that it runs with its object's `compute` in force."""

    @functools.wraps(method)
    def within(self: Any, *inputs: Any, **options: Any) -> Any:
        mode = _mode.get()
        if mode.compute is self.compute:  # called by another such method
            return method(self, *inputs, **options)
        # Inlined: `with computing_with(...)` takes several times as long, which shows in small steps.
        before = _mode.set(Mode(mode.recording, self.compute, mode.kernels, mode.watcher, mode.products))
        try:
            return method(self, *inputs, **options)
        finally:
            _mode.reset(before)

    return within  # pyright: ignore[reportReturnType]


def compute_for(array: Any) -> Compute:
    """Return the compute in force for `array`, or the default of its back end."""
    return _mode.get().compute_for(array)


def kernels_of(name: str) -> Any:
    """Run ops with the kernels in folder `name` within this context, in this thread, whatever the compute in force."""
    return _switched(kernels=load_kernels(name))


def reference_ops() -> Any:
    """Run every op's readable reference and no kernels within this context, in this thread."""
    return kernels_of("reference")


def find_kernel(replaced: Any, reference: Any, array: Any) -> Any:
    """Return the kernel that replaces `replaced` on `array`, or `reference` if there is none."""
    return _mode.get().kernels_for(array).get(replaced, reference)


def has_kernel(replaced: Any, array: Any) -> bool:
    """Return whether a kernel replaces `replaced` on `array`."""
    return find_kernel(replaced, None, array) is not None


def choosing_products(choices: ProductChoices | None) -> Any:
    """Compute a device's products as `choices` say, and add to them, within this context, in this thread."""
    return _switched(products=choices)


def watched_ops(watcher: Watcher) -> Any:
    """Call `watcher` around every op on nodes within this context, in this thread; it may wrap the op's rule."""
    return _switched(watcher=watcher)
