"""`Module`: an object whose Tensor attributes are parameters, found by their path."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tinygrad_chat.tensor import Tensor


class Module:
    """Part of a model. Its parameters are the Tensors among its attributes, its parts' included.

    >>> from tinygrad_chat.nn import Linear
    >>> import numpy as np
    >>> [name for name, _ in Linear(3, 2, random=np.random.default_rng(0)).named_parameters()]
    ['weight', 'bias']
    """

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Yield each parameter once with its path, such as blocks.0.attention.query.weight, in order of definition."""
        seen: set[int] = set()
        for name, tensor in _walk("", self):
            if id(tensor) not in seen:  # a tied weight is met twice and belongs to its first place
                seen.add(id(tensor))
                yield name, tensor


def _walk(path: str, thing: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(thing, Tensor):
        yield path, thing
    elif isinstance(thing, Module):
        for name, part in vars(thing).items():
            yield from _walk(f"{path}.{name}" if path else name, part)
    elif isinstance(thing, list):
        for position, part in enumerate(thing):
            yield from _walk(f"{path}.{position}", part)
