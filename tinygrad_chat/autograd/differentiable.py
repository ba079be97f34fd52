"""How a plain function over arrays becomes an operation over nodes.

An array op computes its result and returns it with its own backward rule:

    @differentiable
    def square(x):
        def backward(d_out):
            return (2 * x * d_out,)
        return x * x, backward

Inputs that may have gradients are positional, static options are keyword-only, and `backward` returns one gradient
(or None) for each positional input. The result is a node of the class of the first node among the inputs, so ops
know nothing of `Tensor`. Called on bare arrays only, an op returns a bare array: ops are also plain functions.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from tinygrad_chat.autograd.value import Node, Rule
from tinygrad_chat.backend import Kernels, backend_of, load_kernels
from tinygrad_chat.errors import ShapeError

ArrayOp = Callable[..., tuple[Any, Rule]]
"""(arrays..., *, options) -> (out, backward)"""


Watcher = Callable[["Operation", Sequence[Any]], Callable[[Any, Rule], Rule]]
"""(operation, inputs), before the op runs -> what is called with (out, rule) after it and returns the rule to use"""


@dataclass(frozen=True)
class _Mode:
    recording: bool = True
    kernels: Kernels | None = None  # instead of the back end's
    watcher: Watcher | None = None


# Of a thread; one that is to go on in the same mode is started in a copy of the context.
_mode: ContextVar[_Mode] = ContextVar("mode", default=_Mode())  # noqa: B039 - frozen


@contextmanager
def _switched(**settings: Any) -> Iterator[None]:
    before = _mode.set(dataclasses.replace(_mode.get(), **settings))
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


def kernels_of(name: str) -> Any:
    """Within this context, in this thread, ops run the kernels of that folder, whatever the back end has chosen."""
    return _switched(kernels=load_kernels(name))


def reference_ops() -> Any:
    """Within this context, in this thread, every op runs its readable reference and no kernel."""
    return kernels_of("reference")


def find_kernel(replaced: Any, reference: Callable[..., Any], array: Any) -> Callable[..., Any]:
    """Return the kernel to run on `array` instead of what it replaces, or `reference` where there is none."""
    kernels = _mode.get().kernels
    return (backend_of(array).kernels if kernels is None else kernels).get(replaced, reference)


def watched_ops(watcher: Watcher) -> Any:
    """Within this context, in this thread, `watcher` sees every op on nodes come and go, and may wrap its rule."""
    return _switched(watcher=watcher)


class Operation:
    """An array op that also works on nodes. `reference` is the array function, `name` its name."""

    def __init__(self, reference: ArrayOp) -> None:
        functools.update_wrapper(self, reference)
        self.reference = reference
        self.name = reference.__name__

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Compute the op; if an input is a node, return a node that knows its parents and its rule."""
        first: Any = None
        parents: list[Node | None] = []
        arrays: list[Any] = []
        for x in inputs:
            if isinstance(x, Node):
                if first is None:
                    first = x
                parents.append(x)
                arrays.append(x.data)  # pyright: ignore[reportAttributeAccessIssue]
            else:
                parents.append(None)
                arrays.append(x)
        if first is None:
            return self._run(self.reference, arrays, options)[0]
        mode = _mode.get()
        seen = None if mode.watcher is None else mode.watcher(self, inputs)
        out, rule = self._run(find_kernel(self, self.reference, first.data), arrays, options)
        if seen is not None:
            rule = seen(out, rule)
        if not mode.recording:
            return type(first)(out)
        return type(first)(out, tuple(parents), rule)

    def _run(self, compute: ArrayOp, arrays: Sequence[Any], options: Mapping[str, Any]) -> tuple[Any, Rule]:
        try:
            return compute(*arrays, **options)
        except ShapeError:
            raise
        except (ValueError, IndexError) as error:  # the array library's own words, which do not name the op
            shapes = ", ".join(str(x.shape) for x in arrays if hasattr(x, "shape"))
            raise ShapeError(f"{self.name}: {error} (received {shapes or 'no arrays'})") from error

    def __repr__(self) -> str:
        return f"<op {self.name}>"


def differentiable(reference: ArrayOp) -> Operation:
    """Turn an array op into an `Operation`; see the head of this file."""
    return Operation(reference)
