"""What the stand-in's stream captures in place of a CUDA graph: calls with the addresses of their arrays.

As on a GPU, nothing is computed while work is captured, and what the host then passes as a number stays as it was. A
replay makes the calls again on what lies at their addresses by then. Memory that was allocated meanwhile belongs to the
tape and holds NaNs; any other must still be there.
"""

from __future__ import annotations

import ctypes
import functools
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tinygrad_chat.backend import GraphCapture

_tape: Tape | None = None


class CaptureError(RuntimeError):
    """Work that CUDA or CuPy refuses while a stream captures, or a replay of what is not there any longer."""


class Tape:
    """Calls in order, and the memory that was allocated between them."""

    def __init__(self) -> None:
        self.calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self.memory: list[np.ndarray] = []

    def replay(self) -> None:
        """Make every call again."""
        for function, arguments in self.calls:
            function(*_found(arguments))


@contextmanager
def capturing() -> Iterator[Tape]:
    """Keep what is submitted within this context, instead of doing it."""
    global _tape
    assert _tape is None
    _tape = Tape()
    try:
        yield _tape
    finally:
        _tape = None


def is_capturing() -> bool:
    """Return whether work is being captured."""
    return _tape is not None


def refuse(what: str) -> None:
    """Raise CaptureError if work is being captured."""
    if _tape is not None:
        raise CaptureError(f"{what}: not while a stream captures")


def submit(function: Callable[..., Any], *arguments: Any) -> None:
    """Call a function that writes into its arguments, now or at each replay. It receives NumPy's arrays."""
    if _tape is None:
        function(*_plain(arguments))
    else:
        _tape.calls.append((function, _kept(arguments)))


def result_of(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return a function's result; if it is no view of an argument, it is computed now or at each replay."""
    if _tape is None:
        return function(*_plain(arguments))
    with np.errstate(all="ignore"):
        result = function(*_plain(arguments))
    if _views(result, _arrays(arguments)):
        return result
    if not isinstance(result, (np.ndarray, np.generic)):
        raise CaptureError(f"{function}: a result of type {type(result).__name__} cannot be captured")
    out = allocated(np.empty(np.shape(result), result.dtype))
    _tape.calls.append((lambda out, *given: out.__setitem__(..., function(*given)), _kept((out, *arguments))))
    return out


def allocated(x: np.ndarray) -> np.ndarray:
    """Return x; if work is being captured, as memory of the tape, with bytes of all ones."""
    if _tape is not None:
        _tape.memory.append(_owner(x))
        x.reshape(-1).view(np.uint8)[...] = 0xFF
    return x


class TapeCapture(GraphCapture):
    """Captures work on tapes; as a stream of its own would, it does nothing outside its context."""

    def __init__(self) -> None:
        self._entered = False

    @contextmanager
    def on_its_stream(self) -> Iterator[None]:
        """Let work be captured and replayed."""
        assert not self._entered
        self._entered = True
        try:
            yield
        finally:
            self._entered = False

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Capture `work` on a tape."""
        assert self._entered
        with capturing() as tape:
            work()
        return functools.partial(self._replay, tape)

    def _replay(self, tape: Tape) -> None:
        assert self._entered
        tape.replay()


class _Place:
    """Where an array lies, without keeping it there."""

    def __init__(self, x: np.ndarray) -> None:
        self._owner = weakref.ref(_owner(x))
        self._address = x.ctypes.data
        self._layout = x.dtype, x.shape, x.strides

    def array(self) -> np.ndarray:
        """Return the array, if its memory is still there."""
        if self._owner() is None:
            raise CaptureError(f"a replay met memory that has been freed, of shape {self._layout[1]}")
        dtype, shape, strides = self._layout
        if 0 in shape:
            return np.empty(shape, dtype)
        memory: Any = (ctypes.c_uint8 * dtype.itemsize).from_address(self._address)
        first = np.frombuffer(memory, np.uint8).view(dtype)
        return np.lib.stride_tricks.as_strided(first, shape, strides)


def _owner(x: np.ndarray) -> np.ndarray:
    while isinstance(x.base, np.ndarray):
        x = x.base
    return x


def _each(change: Callable[[Any], Any], kind: type, x: Any) -> Any:
    if isinstance(x, kind):
        return change(x)
    if isinstance(x, (tuple, list)):
        return type(x)([_each(change, kind, part) for part in x])
    if isinstance(x, dict):
        return {name: _each(change, kind, part) for name, part in x.items()}
    return x


def _plain(x: Any) -> Any:
    return _each(lambda array: array.view(np.ndarray), np.ndarray, x)


def _kept(x: Any) -> Any:
    return _each(_Place, np.ndarray, x)


def _found(x: Any) -> Any:
    return _each(_Place.array, _Place, x)


def _arrays(x: Any) -> list[np.ndarray]:
    found: list[np.ndarray] = []
    _each(found.append, np.ndarray, x)
    return found


def _views(result: Any, arrays: list[np.ndarray]) -> bool:
    parts = result if isinstance(result, (tuple, list)) else [result]
    owners = {id(_owner(x)) for x in arrays}
    return all(isinstance(part, np.ndarray) and id(_owner(part)) in owners for part in parts)
