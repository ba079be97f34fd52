"""Optimiser state: arrays, saved and loaded by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tinygrad_chat.backend import array_module, to_host
from tinygrad_chat.errors import CheckpointError

NEGLIGIBLE = 1e-30
FLUSH_EVERY = 16  # steps between checks: even a mean of beta 0.8 decays only to 1e-32 in them, still a normal float32


def copy_to_host(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return a copy of every array in host memory."""
    return {name: np.array(to_host(array)) for name, array in arrays.items()}


def overwrite(arrays: Mapping[str, Any], state: Mapping[str, np.ndarray]) -> None:
    """Overwrite every array with the one of its name in `state`; if one is missing or does not fit, none changes."""
    for name, array in arrays.items():
        if name not in state or state[name].shape != array.shape:
            found = state[name].shape if name in state else "none"
            raise CheckpointError(f"optimiser state does not fit: {name} is {found}, expected {array.shape}")
    for name, array in arrays.items():
        array[...] = array_module(array).asarray(state[name], array.dtype)  # not all are on the device


def flush_negligible(averages: Iterable[Any]) -> None:
    """On a CPU, set to 0 tiny averages of gradients that have themselves become 0.

    Such an average would decay to a subnormal number and stay there: 0.95 times the smallest one rounds back to it. A
    CPU takes a hundred times as long for subnormals (a GPU does not), and a unit that squared_relu has switched off for
    good has a whole row of them. What is dropped here is far above subnormal and far too small to move a weight.
    """
    for average in averages:
        if array_module(average) is np:
            average[np.abs(average) < NEGLIGIBLE] = 0


def state_of(averages: Mapping[str, Any], steps: int) -> dict[str, np.ndarray]:
    """Return averages, and the number of steps they cover, in host memory."""
    return {**copy_to_host(averages), "steps": np.array([steps])}


def load_state(averages: Mapping[str, Any], state: Mapping[str, np.ndarray]) -> int:
    """Overwrite averages with the result of `state_of`; return the steps. Raises CheckpointError if they do not fit."""
    steps = np.zeros(1, np.int64)
    overwrite({**averages, "steps": steps}, state)
    if steps[0] < 0:
        raise CheckpointError(f"optimiser state does not fit: expected steps of at least 0, received {steps[0]}")
    return int(steps[0])
