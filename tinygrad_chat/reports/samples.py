"""Texts that a run's model wrote during training: the first, the last, and some in between."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tinygrad_chat.errors import TinygradChatError
from tinygrad_chat.files import explained, list_folder, open_plain
from tinygrad_chat.runs.checkpoint import NAME, step_of
from tinygrad_chat.runs.folder import RunFolder

T = TypeVar("T")

MAX_SAMPLES = 6  # texts that are shown
LONGEST_SAMPLE = 4000  # characters of each


def read_samples(folder: RunFolder, *, say: Callable[[str], None]) -> Iterator[tuple[int, str]]:
    """Yield step and text of the first sample, the last and evenly spaced ones in between, skipping any that cannot be
    read; `say` is told why."""
    with explained(folder.samples, "read"):
        files = [file for file in list_folder(folder.samples) if re.fullmatch(rf"{NAME}\.txt", file.name)]
    found = {step_of(file.with_suffix("")): file for file in files}
    for step in spread(sorted(found), MAX_SAMPLES):
        text = known(functools.partial(_beginning, found[step]), None, say=say)
        if text is not None:
            yield step, text[:LONGEST_SAMPLE] + "…" * (len(text) > LONGEST_SAMPLE)


def _beginning(file: Path) -> str:
    """Return the beginning of a text, a little more than is shown."""
    with explained(file, "read"), open_plain(file) as opened:
        return opened.read(4 * LONGEST_SAMPLE + 4).decode("utf-8", "replace")


def spread(items: Sequence[Any], most: int) -> list[Any]:
    """Return at most so many items, evenly spread, the first and the last among them.

    >>> spread(range(10), 4)
    [0, 3, 6, 9]
    """
    if len(items) <= most:
        return list(items)
    return [items[round(index * (len(items) - 1) / (most - 1))] for index in range(most)]


def known(read: Callable[[], T], otherwise: T, *, say: Callable[[str], None] = lambda line: None) -> T:
    """Return what `read` returns; if it raises a TinygradChatError, `say` why and return `otherwise`."""
    try:
        return read()
    except TinygradChatError as error:
        say(str(error))
        return otherwise
