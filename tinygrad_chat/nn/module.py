"""`Module`: an object whose Tensor attributes are parameters, found by their path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Self

from tinygrad_chat.nn.parameters import Parameters
from tinygrad_chat.tensor import Tensor


class Module:
    """A part of a model. Its parameters are the Tensors among its attributes, those of its parts included.

    >>> from tinygrad_chat.nn import Linear
    >>> import numpy as np
    >>> [name for name, _ in Linear(3, 2, random=np.random.default_rng(0)).named_parameters()]
    ['weight', 'bias']
    """

    frozen: Mapping[str, Any] = MappingProxyType({})
    """Arrays by name that the module uses but training does not change: saved and loaded like parameters."""
    _parameters: Parameters | None = None

    @classmethod
    def of(cls, **attributes: Any) -> Self:
        """Return a module with existing Tensors as attributes; nothing is initialised at random."""
        module = cls.__new__(cls)
        vars(module).update(attributes)
        return module

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Yield each parameter once with its path, such as blocks.0.attention.query.weight, in order of definition."""
        seen: set[int] = set()
        for name, tensor in _walk("", self):
            if id(tensor) not in seen:  # a tied weight is met twice and keeps its first path
                seen.add(id(tensor))
                yield name, tensor

    def parameters(self) -> Parameters:
        """Return the parameters, in flat buffers that the first call creates, their gradient included.

        Call this on the whole model, whose `compute` applies if it has one: on a part, it would move that part's
        parameters out of the buffers of the whole.
        """
        if self._parameters is None:
            named, compute = dict(self.named_parameters()), getattr(self, "compute", None)
            self._parameters = Parameters(named, self.frozen, compute=compute)
        return self._parameters

    def __repr__(self) -> str:
        """One line per part, with the shapes of its Tensors and how many numbers they hold; equal parts once."""
        (title, total), *parts = _outline("", self, set())
        lines = [(title, ""), *parts, ("parameters", total or "0")]
        left, right = (max(len(line[column]) for line in lines) for column in (0, 1))
        return "\n".join(f"{text:<{left}}  {count:>{right}}".rstrip() for text, count in lines)


def _walk(path: str, thing: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(thing, Tensor):
        yield path, thing
    elif isinstance(thing, Module):
        for name, part in vars(thing).items():
            yield from _walk(f"{path}.{name}" if path else name, part)
    elif isinstance(thing, list):
        for index, part in enumerate(thing):
            yield from _walk(f"{path}.{index}", part)


Outline = list[tuple[str, str]]
"""Lines: what a part is, and how many parameters it has"""


def _outline(label: str, module: Module, seen: set[int]) -> Outline:
    tensors = {name: part for name, part in vars(module).items() if isinstance(part, Tensor)}
    shapes = [f"{name} {' x '.join(map(str, tensor.shape))}" for name, tensor in tensors.items()]
    tied = ["tied"] if any(id(tensor) in seen for tensor in tensors.values()) else []
    count = sum(tensor.size for _, tensor in module.named_parameters() if id(tensor) not in seen)
    seen |= {id(tensor) for tensor in tensors.values()}
    details = f"({', '.join(shapes + tied)})" if shapes else ""
    lines = [(f"{label}{type(module).__name__}{details}", f"{count:,}" if count else "")]
    for name, part in vars(module).items():
        if isinstance(part, Module):
            lines += [(f"  {text}", count) for text, count in _outline(f"{name}: ", part, seen)]
        elif isinstance(part, list):
            lines += [(f"  {text}", count) for text, count in _outline_of_list(name, part, seen)]
    return lines


def _outline_of_list(name: str, parts: list[Any], seen: set[int]) -> Outline:
    """Describe parts that look alike once, with all their indices."""
    alike: dict[tuple[tuple[str, str], ...], list[int]] = {}
    for index, part in enumerate(parts):
        if isinstance(part, Module):
            alike.setdefault(tuple(_outline("", part, seen)), []).append(index)
    lines: Outline = []
    for ((first, count), *rest), indices in alike.items():
        which = "" if len(indices) == len(parts) else f".{','.join(map(str, indices))}"
        times = f"{len(indices)} x " if len(indices) > 1 else ""
        lines += [(f"{name}{which}: {times}{first}", f"{times}{count}" if count else ""), *rest]
    return lines
