"""How an array may lie in memory: its axes in any order, with gaps, backwards, read-only, in the other byte order."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.catalogue import Case
from tinygrad_chat.backend import Backend, get_backend

HOST = get_backend("numpy")


@dataclass(frozen=True)
class Layout:
    """A way to lie in memory, for arrays of any number of axes.

    Axes are stored from the `first` on, or in the opposite order if `reverse`; of axis a the array is every
    steps[a]-th element, from the end where that is negative. With `shift` it begins between two numbers.
    """

    first: int = 0
    reverse: bool = False
    steps: tuple[int, ...] = (1,)
    shift: int = 0
    read_only: bool = False
    swapped: bool = False

    def lay_out(self, x: Any, backend: Backend = HOST) -> Any:
        """Return an array equal to x, which is the back end's, that lies so; between its elements there are NaNs."""
        dtype = x.dtype.newbyteorder("S") if self.swapped else x.dtype
        stored = np.roll(np.arange(x.ndim), -self.first)[:: -1 if self.reverse else 1]
        steps = [self.steps[axis % len(self.steps)] for axis in range(x.ndim)]
        sizes = [x.shape[axis] * abs(steps[axis]) for axis in stored]
        content = backend.xp.full(self.shift + math.prod(sizes) * dtype.itemsize, -1, np.int8)  # all ones: NaN
        memory = content[self.shift :].view(dtype).reshape(sizes)
        array = memory.transpose(np.argsort(stored).tolist())[(*(slice(None, None, step) for step in steps), ...)]
        array[...] = x
        if self.read_only:
            array.flags.writeable = False
        return array


def lay_out_case(case: Case, layouts: list[Layout], backend: Backend = HOST) -> Case:
    """Return the case with its arrays, those among the options too, in the layouts, which take turns."""
    turns = iter(layouts * (len(case.inputs) + len(case.options)))

    def lay_out(x: Any) -> Any:
        return next(turns).lay_out(x, backend) if isinstance(x, backend.array_type) else x

    return Case(tuple(map(lay_out, case.inputs)), {name: lay_out(x) for name, x in case.options.items()})


EXAMPLES = {
    "Fortran": Layout(reverse=True),
    "transposed": Layout(first=1),
    "with gaps": Layout(steps=(1, 2, 3)),
    "backwards": Layout(steps=(-1,)),
    "read-only": Layout(read_only=True),
    "between numbers": Layout(shift=1),
    "the other byte order": Layout(swapped=True),
    "all at once": Layout(first=2, reverse=True, steps=(-2, 1, -1), shift=3, read_only=True, swapped=True),
}

in_any_order = st.builds(
    Layout,
    first=st.integers(0, 2),
    reverse=st.booleans(),
    steps=st.tuples(*[st.sampled_from([1, 2, -1, -3])] * 3),
)
"""Of numbers that an array library may hold on any device."""

anywhere = st.builds(replace, in_any_order, shift=st.integers(0, 1), read_only=st.booleans(), swapped=st.booleans())
"""All that NumPy knows."""
