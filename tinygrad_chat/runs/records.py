"""The records of a run, with a type for each file, and reading its logs line by line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Generic, Literal, TypedDict, TypeVar

from tinygrad_chat.backend import available_memory
from tinygrad_chat.errors import FormatError
from tinygrad_chat.files import explained, is_there, plain_lines
from tinygrad_chat.schema import Amount, Bounds, Count, parse_lines

LARGEST_LOG = 1 << 30  # bytes: several million lines
SMALL_LOG = 1 << 20  # bytes: read in less time than it takes to ask for the available memory
LONGEST_LINE = 1 << 16  # bytes: a thousand times a usual line

Seconds = Annotated[float, Bounds(minimum=0, maximum=1e10)]  # three hundred years


class Outcome(TypedDict):
    """outcome.json: how training ended, after how many steps and seconds, and why."""

    outcome: Literal["finished", "interrupted", "failed", "imported"]
    step: Count
    seconds: Seconds
    reason: str


class Environment(TypedDict):
    """An entry of environment.json: the environment of the run from a step on."""

    from_step: Count


class Line(TypedDict):
    """The fields that every line of a log has."""

    step: Count


class LogLine(Line, total=False):
    """A line of log.jsonl: what the seed determines."""

    loss: float
    lr: float
    grad_norm: Amount
    val_loss: float
    val_reward: float
    reward: float
    no_signal: Amount
    answer_length: Amount
    val_perplexity: Amount
    val_bpb: float
    skipped_spike: float
    rolled_back_from: Count
    reason: str


class TimingLine(Line, total=False):
    """A line of timing.jsonl: what depends on the machine."""

    seconds: Seconds
    tokens_per_second: Amount
    memory: Count
    device_memory: Count


L = TypeVar("L", LogLine, TimingLine)


@dataclass(frozen=True)
class Log(Generic[L]):
    """The valid lines of a log, as bytes and as records; `unfit` says what is wrong with the first invalid one. A last
    line that a crash cut short does not count."""

    lines: list[tuple[bytes, L]]
    unfit: str = ""

    @property
    def records(self) -> list[L]:
        """The records of the lines."""
        return [record for _, record in self.lines]


def read_log(path: Path, kind: type[L]) -> Log[L]:
    """Return the lines of a log, none if there is no file. Raises StorageError if it cannot be read."""
    with explained(path, "read"):
        lines = list(log_lines(path)) if is_there(path) else []
    found = list(parse_lines(lines, kind, source=path.name))
    whole = found if lines and lines[-1].endswith(b"\n") else found[:-1]
    unfit = next((str(record) for _, record in whole if isinstance(record, FormatError)), "")
    return Log([(line, record) for line, record in found if not isinstance(record, FormatError)], unfit)


def log_lines(path: Path) -> Iterator[bytes]:
    """Yield the raw lines of a log. Raises OSError if it cannot be read."""
    most = SMALL_LOG if path.lstat().st_size <= SMALL_LOG else min(LARGEST_LOG, available_memory())
    return plain_lines(path, most=most, longest=LONGEST_LINE)
