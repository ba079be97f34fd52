"""ZeRO-1 (Rajbhandari et al., arXiv:1910.02054): each rank's optimiser keeps and updates its share of the parameters.

The parameters are in one flat array, and a rank's share is a slice of it. So one reduce-scatter sums the gradients of
all ranks, and one all-gather distributes the updated weights.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tinygrad_chat.backend import Backend
from tinygrad_chat.nn import Parameters

BY_ELEMENT = 100
"""The cost of AdamW per element, in operations of a matrix product of the same duration: AdamW is memory-bound."""


def cost_of_muon(rows: int, columns: int) -> int:
    """Return the operations of Muon for a matrix: five rounds of three matrix products."""
    short, long = sorted((rows, columns))
    return 5 * (4 * short * short * long + 2 * short**3)


def cut(parameters: Parameters, whole: set[str], size: int) -> list[slice]:
    """Return shares of the flat parameters for `size` ranks, with the work divided as evenly as possible.

    The parameters named in `whole`, Muon's matrices, are not cut. With few parameters, a share may be empty.
    """
    ends, costs = [0], [0]
    for name, span in parameters.spans():
        count = span.stop - span.start
        ends.append(span.stop)
        costs.append(costs[-1] + (cost_of_muon(*parameters[name].shape) if name in whole else BY_ELEMENT * count))
    names, cuts = list(parameters), [0]
    for rank in range(1, size):
        target = costs[-1] * rank / size
        after = int(np.searchsorted(costs, target))  # the end of the parameter in which the target lies
        low, high = costs[after - 1], costs[after]
        fraction = (target - low) / (high - low)
        if names[after - 1] in whole:
            fraction = round(fraction)
        cuts.append(ends[after - 1] + round(fraction * (ends[after] - ends[after - 1])))
    cuts.append(ends[-1])
    return [slice(start, stop) for start, stop in itertools.pairwise(cuts)]


def even_shares(elements: int, size: int) -> list[slice]:
    """Return each rank's slice of elements, or rows, in order. The sizes differ by at most one, and may be 0."""
    ends = [elements * rank // size for rank in range(size + 1)]
    return [slice(*pair) for pair in itertools.pairwise(ends)]


class ParameterShare:
    """A share of the parameters, with the interface that an optimiser expects of `Parameters`.

    `data` and `compute_weights` are views of that slice. `gradient` is a separate array, for the sum of all ranks'
    gradients.
    """

    def __init__(self, parameters: Parameters, span: slice) -> None:
        self.size = span.stop - span.start
        self.data = parameters.data[span]
        self.gradient = parameters.backend.xp.zeros(self.size, parameters.gradient.dtype)
        weights = parameters.compute_weights
        self.compute_weights = None if weights is None else weights[span]
        self.matrices = slice(0, min(max(parameters.matrices.stop - span.start, 0), self.size))
        self._parameters, self._span = parameters, span

    @property
    def backend(self) -> Backend:
        """Where the arrays are."""
        return self._parameters.backend

    def kernel_of(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the same kernel as the parameters."""
        return self._parameters.kernel_of(function)

    def masters(self) -> Iterator[tuple[str, Any]]:
        """Yield each parameter's name and its part of the share: in the parameter's shape, or flat if it is cut."""
        for name, piece in _pieces(self._parameters, self._span):
            start = piece.start - self._span.start
            array, shape = self.data[start : start + piece.stop - piece.start], self._parameters[name].shape
            yield name, array.reshape(shape) if array.size == self._parameters[name].size else array

    def refresh_compute_weights(self) -> None:
        """Update the compute weights of the share, if there are any, from the data."""
        if self.compute_weights is not None:
            self.compute_weights[...] = self.data.astype(self.compute_weights.dtype)


def _pieces(parameters: Parameters, share: slice) -> Iterator[tuple[str, slice]]:
    """Yield the names of the parameters in a share, and the slice of the flat parameters that is in it."""
    for name, span in parameters.spans():
        start, stop = max(span.start, share.start), min(span.stop, share.stop)
        if start < stop:
            yield name, slice(start, stop)


def part_of_state(parameters: Parameters, state: Mapping[str, np.ndarray], share: slice) -> dict[str, np.ndarray]:
    """Return the optimiser state of a share, taken from the state for all parameters."""
    pieces, spans = dict(_pieces(parameters, share)), dict(parameters.spans())
    found: dict[str, np.ndarray] = {}
    for key, array in state.items():
        name = _parameter_of(key, spans)
        if array.shape == (parameters.size,):
            found[key] = array[share]
        elif name is None or pieces.get(name) == spans[name]:
            found[key] = array
        elif name in pieces:
            first = spans[name].start
            found[key] = array.ravel()[pieces[name].start - first : pieces[name].stop - first]
    return found


def whole_state(parameters: Parameters, states: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the optimiser state for all parameters, merged from those of the shares, in order."""
    spans = dict(parameters.spans())
    pieces: dict[str, list[np.ndarray]] = {}
    for state in states:
        for key, array in state.items():
            pieces.setdefault(key, []).append(array)
    merged: dict[str, np.ndarray] = {}
    for key, found in pieces.items():
        name = _parameter_of(key, spans)
        if name is None and found[0].ndim == 1 and sum(each.size for each in found) == parameters.size:
            merged[key] = np.concatenate(found)
        elif name is None or len(found) == 1:
            merged[key] = found[0]
        else:
            merged[key] = np.concatenate([each.ravel() for each in found]).reshape(parameters[name].shape)
    return merged


def _parameter_of(key: str, spans: Mapping[str, slice]) -> str | None:
    """Return the parameter that an entry of the state belongs to, such as head.weight for mean.head.weight."""
    name = key.partition(".")[2]
    return name if name in spans else None
