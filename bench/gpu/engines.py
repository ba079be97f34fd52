"""The engines that are compared: those that are installed, each in a process of its own, for as long as it works."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from bench import turns
from bench.gpu.stages import Record, Settings

PATIENCE = 150.0  # seconds for an answer; the first steps compile
NAMES = (turns.OURS, "torch eager", "torch compile")


class LeftOutError(Exception):
    """What a stage needs is not there; the message says what."""


class OutOfRoomError(turns.BenchmarkError):
    """The device's memory does not hold a measurement."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error, of ours, of CuPy or of PyTorch, means that there was not enough memory."""
    kinds = MemoryError, OutOfRoomError
    return isinstance(error, kinds) or type(error).__name__ in ("OutOfMemoryError", "MemoryShortageError")


def device_of(settings: Settings) -> str:
    """Return where PyTorch and nanochat compute."""
    return "cpu" if settings.trial else "cuda"


def backend_of(settings: Settings) -> str:
    """Return where ours computes."""
    return "numpy" if settings.trial else "cupy"


class Engines:
    """Workers by their names. Where a peer fails, that is a line of the record, and the others go on."""

    def __init__(self, workers: Mapping[str, turns.Worker], record: Record) -> None:
        self._workers, self._record = dict(workers), record

    @property
    def names(self) -> list[str]:
        """Those that still work, ours first."""
        return list(self._workers)

    def ask(self, engine: str, request: Mapping[str, Any], *, must_fit: bool = True) -> dict[str, Any] | None:
        """Return an engine's answer, None where the engine does not work, or no longer.

        Raises BenchmarkError where ours does not work, and OutOfRoomError where the device has no room for ours, or
        for any engine unless its request `must_fit`.
        """
        if engine not in self._workers:
            return None
        try:
            answer = self._workers[engine].ask(request, within=PATIENCE)
            if "out_of_memory" in answer:
                raise OutOfRoomError(f"{engine}: no room on the device for {request['what']} of {request.get('sizes')}")
        except turns.BenchmarkError as error:
            if isinstance(error, OutOfRoomError) and not must_fit:
                raise
            self.drop(engine, str(error))
            if engine == turns.OURS:
                raise
            return None
        return answer

    def drop(self, engine: str, reason: str) -> None:
        """Go on without an engine."""
        self._record.say("engine failed", engine=engine, reason=reason)
        del self._workers[engine]

    def rest(self, *, but: str) -> None:
        """Let all engines but one give back the device's memory."""
        for engine in self.names:
            if engine != but:
                self.ask(engine, {"what": "rest"})


@contextmanager
def open_engines(settings: Settings, record: Record, *, compiled: bool = True) -> Iterator[Engines]:
    """Provide ours and PyTorch, eager and, on a GPU, `compiled`. Without PyTorch there is only ours."""
    names = [name for name in NAMES if name != "torch compile" or (compiled and not settings.trial)]
    if find_spec("torch") is None:
        record.say("engine failed", engine="torch", reason="PyTorch is not installed")
        names = [turns.OURS]
    commands = {name: ("bench.gpu.worker", name, device_of(settings)) for name in names}
    with turns.open_workers(commands, own_sessions=False) as workers:
        yield Engines(workers, record)
