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

import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tinygrad_chat.autograd.value import Node, Rule
from tinygrad_chat.backend import backend_of
from tinygrad_chat.errors import ShapeError

ArrayOp = Callable[..., tuple[Any, Rule]]
"""(arrays..., *, options) -> (out, backward)"""


Watcher = Callable[["Operation", Sequence[Any], Any, Rule], Rule]
"""(operation, inputs, out, rule) -> the rule to use instead"""


class _Mode(threading.local):
    recording = True
    reference_only = False
    watcher: Watcher | None = None


_mode = _Mode()


@contextmanager
def _switched(**settings: Any) -> Iterator[None]:
    before = {name: getattr(_mode, name) for name in settings}
    vars(_mode).update(settings)
    try:
        yield
    finally:
        vars(_mode).update(before)


def recording() -> bool:
    """Return whether results remember what they were computed from, in this thread: not within `no_grad`."""
    return _mode.recording


def no_grad() -> Any:
    """Within this context, in this thread, results of ops remember nothing: for evaluation and sampling."""
    return _switched(recording=False)


def reference_ops() -> Any:
    """Within this context, in this thread, every op runs its readable reference and no kernel."""
    return _switched(reference_only=True)


def watched_ops(watcher: Watcher) -> Any:
    """Within this context, in this thread, `watcher` sees every op on nodes, and may wrap its rule to see that too."""
    return _switched(watcher=watcher)


class Operation:
    """An array op that also works on nodes. `reference` is the array function, `name` its name."""

    def __init__(self, reference: ArrayOp) -> None:
        functools.update_wrapper(self, reference)
        self.reference = reference
        self.name = reference.__name__

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Compute the op; if an input is a node, return a node that knows its parents and its rule."""
        first: Any = next((x for x in inputs if isinstance(x, Node)), None)
        if first is None:
            return self._run(self.reference, inputs, options)[0]
        arrays = [x.data if isinstance(x, Node) else x for x in inputs]  # pyright: ignore[reportAttributeAccessIssue]
        compute = self.reference
        if not _mode.reference_only:
            compute = backend_of(first.data).kernels.get(self, compute)
        out, rule = self._run(compute, arrays, options)
        if _mode.watcher is not None:
            rule = _mode.watcher(self, inputs, out, rule)
        wrap = type(first)
        if not _mode.recording:
            return wrap(out)
        return wrap(out, tuple(x if isinstance(x, Node) else None for x in inputs), rule)

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
