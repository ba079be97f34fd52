"""How a plain function of arrays becomes an operation on graph nodes.

An array op returns its result together with its backward rule:

    @differentiable
    def square(x):
        def backward(d_out):
            return (2 * x * d_out,)
        return x * x, backward

Inputs that may have gradients are positional, static options are keyword-only, and `backward` returns one gradient
(or None) for each positional input. An op may also return a tuple of results; `backward` then takes one upstream
gradient for each, None for a result that was not used. The result is a node of the same class as the first node among
the inputs, so ops know nothing about `Tensor`. Called on bare arrays only, an op returns bare arrays, so ops are also
plain functions; as class attributes, they are methods.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import MethodType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

import numpy as np

from tinygrad_chat.autograd.mode import current_mode
from tinygrad_chat.autograd.sweep import Rule
from tinygrad_chat.autograd.value import Node
from tinygrad_chat.backend import array_module, in_native_order
from tinygrad_chat.errors import ShapeError

ArrayOp = Callable[..., tuple[Any, Rule]]
"""(arrays..., *, options) -> (out, backward), or (outs, backward) with a tuple of results"""

AnyNode = TypeVar("AnyNode", bound=Node)
Others = ParamSpec("Others")
"""The parameters of an op after its first input."""
Constant = np.ndarray | np.generic | float
"""An input without a gradient, as type checkers see it: CuPy has no types."""


class Operation(Generic[Others]):
    """An array op that also works on nodes. `reference` is the array function, `name` its name.

    Type checkers see the reference's parameters, and a node returned for nodes or an array for arrays. For an op with
    several results they see only one: unpack it.
    """

    def __init__(self, reference: Callable[Concatenate[Any, Others], tuple[Any, Rule]]) -> None:
        functools.update_wrapper(self, reference)
        self.reference: ArrayOp = reference
        self.name = reference.__name__
        self.signature = inspect.signature(reference)
        parameters = self.signature.parameters.values()
        self._named_inputs = {p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD}
        self._takes_any_number = any(p.kind is p.VAR_POSITIONAL for p in parameters)

    @overload
    def __call__(self, first: AnyNode, /, *others: Others.args, **options: Others.kwargs) -> AnyNode: ...
    @overload
    def __call__(self, first: Sequence[AnyNode], /, *others: Others.args, **options: Others.kwargs) -> AnyNode: ...
    @overload
    def __call__(self, first: Constant, second: AnyNode, /, *rest: Any, **options: Any) -> AnyNode: ...
    @overload
    def __call__(self, first: Constant, second: Constant, third: AnyNode, /, *rest: Any, **options: Any) -> AnyNode: ...
    @overload
    def __call__(self, first: Constant, /, *others: Others.args, **options: Others.kwargs) -> np.ndarray: ...
    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Run the op; if any input is a node, return a node with its parents and backward rule."""
        if options and not self._named_inputs.isdisjoint(options):
            bound = self.signature.bind(*inputs, **options)
            bound.apply_defaults()
            inputs, options = bound.args, bound.kwargs
        elif self._takes_any_number and len(inputs) == 1 and isinstance(inputs[0], (list, tuple)):
            inputs = tuple(inputs[0])
        first: Any = None
        parents: list[Node | None] = []
        arrays: list[Any] = []
        as_they_are = True  # whether each constant is None or an array with axes, in the processor's byte order
        for x in inputs:
            if isinstance(x, Node):
                if first is None:
                    first = x
                parents.append(x)
                arrays.append(x.data)  # pyright: ignore[reportAttributeAccessIssue]
            else:
                parents.append(None)
                arrays.append(x)
                if x is not None and not (type(x) is np.ndarray and x.ndim and x.dtype.isnative):
                    as_they_are = False
        if first is None:
            arrays = [np.asarray(x) if isinstance(x, (list, tuple)) else x for x in arrays]
            return self._run(self.reference, arrays, options)[0]
        if not as_they_are:
            for index, parent in enumerate(parents):
                if parent is None:
                    arrays[index] = _constant(arrays[index], first.data)
        mode = current_mode()
        seen = None if mode.watcher is None else mode.watcher(self, inputs, options)
        out, rule = self._run(mode.kernels_for(first.data).get(self, self.reference), arrays, options)
        if seen is not None:
            rule = seen(out, rule)
        kind: Any = type(first)
        if not mode.recording:
            return tuple(map(kind, out)) if type(out) is tuple else kind(out)
        if type(out) is tuple:
            return _several(kind, out, tuple(parents), rule, self.name)
        return kind(out, tuple(parents), rule, self.name)

    @overload
    def __get__(self, node: None, owner: type) -> Operation[Others]: ...
    @overload
    def __get__(self, node: AnyNode, owner: type) -> Callable[Others, AnyNode]: ...
    def __get__(self, node: Node | None, owner: type) -> Any:
        """Bind the op as a method of its first input, as a plain function would be."""
        return self if node is None else MethodType(self, node)

    def _run(self, compute: ArrayOp, arrays: Sequence[Any], options: Mapping[str, Any]) -> tuple[Any, Rule]:
        try:
            return compute(*arrays, **options)
        except ShapeError:
            raise
        except (ValueError, IndexError) as error:  # the array library's own message does not name the op
            shapes = ", ".join(str(x.shape) for x in arrays if hasattr(x, "shape"))
            raise ShapeError(f"{self.name}: {error} (received {shapes or 'no arrays'})") from error

    def __reduce__(self) -> str:
        """Make copies and pickles resolve to the op itself, since its kernels are looked up by identity."""
        return self.name

    def __repr__(self) -> str:
        return f"<op {self.name}>"


def _constant(x: Any, beside: Any) -> Any:
    """Convert an input without a gradient for use with the array `beside`: a list becomes an array of the same kind,
    an array takes the processor's byte order, and a real scalar takes the dtype of `beside`, since a NumPy scalar or an
    array without axes would widen the result, and a float widens bfloat16."""
    if isinstance(x, (list, tuple)):
        x = array_module(beside).asarray(x)
    elif not hasattr(x, "ndim"):
        narrow = isinstance(x, float) and beside.dtype.name == "bfloat16"
        return array_module(beside).full((), x, beside.dtype) if narrow else x
    elif x.ndim:
        return in_native_order(x)
    return x.astype(beside.dtype) if x.dtype.kind == "f" and x.dtype != beside.dtype else x


class _Gathered(dict[int, Any]):
    """Gradients of an op's results, by index. Adding merges another; a plain array counts for the first result."""

    __array_ufunc__ = None  # so that `array + gathered` calls __radd__

    def __add__(self, other: Any) -> _Gathered:
        others = other if isinstance(other, _Gathered) else {0: other}
        return _Gathered({**self, **{i: self[i] + d if i in self else d for i, d in others.items()}})

    __radd__ = __add__


def _several(kind: Any, results: tuple[Any, ...], parents: tuple[Node | None, ...], rule: Rule, op: str) -> Any:
    """Return a node for each result: the first is the parent of the others, so all gradients accumulate there."""
    numbers = range(len(results))

    def rule_of_all(d: Any) -> Sequence[Any]:
        return rule(*map(d.get, numbers)) if type(d) is _Gathered else rule(d, *(None for _ in numbers[1:]))

    def hand_over(number: int) -> Rule:
        return lambda d_out: (_Gathered({number: d_out}),)

    first = kind(results[0], parents, rule_of_all, op)
    return first, *(kind(results[number], (first,), hand_over(number), op) for number in numbers[1:])


def differentiable(reference: Callable[Concatenate[Any, Others], tuple[Any, Rule]]) -> Operation[Others]:
    """Turn an array op into an `Operation`; see the module docstring."""
    return Operation(reference)
