"""What can go wrong for a user, as one tree. Each message says what was expected, what was received and what to do.

    TinygradChatError               any of those below; `exit_code` is the exit code of `tgc`
    ├── UsageError           2      an option or argument that cannot work
    │   ├── BackendError     2      no GPU, no CuPy, the wrong wheel, or an extra that is not installed
    │   └── ConfigError      2      a configuration with an unknown key or a value out of range
    │       └── NoRoomError  2      a model or a step that needs more memory than there is, found before it starts
    ├── DataError            2      an empty, too short or undecodable corpus
    │   └── VocabularyError  2      a character that the tokenizer does not know
    ├── CheckpointError      2      nothing to load, or a file that is damaged or does not fit
    ├── FormatError          2      a run's file, or one beside it, whose contents are not as they must be
    ├── StorageError         3      the disk is full or a folder cannot be written
    ├── MemoryShortageError  3      not enough memory for a step, on the host or on the device
    ├── RankError            3      one of several ranks that has exited, hangs or is cut off
    ├── DivergedError        4      a loss or gradient that is NaN or infinite
    ├── MemoryGrowthError    5      memory use that grows from evaluation to evaluation
    └── ShapeError           1      arrays whose shapes do not fit an op (also a ValueError)

`tgc` exits with 130 on Ctrl-C, 143 on SIGTERM, 129 on SIGHUP and 138 on SIGUSR1; training saves a checkpoint first.
"""

from __future__ import annotations


class TinygradChatError(Exception):
    """Base of every error that this package raises for a user's mistake or an unfit machine."""

    exit_code = 1


class UsageError(TinygradChatError):
    """An option or argument that cannot work."""

    exit_code = 2


class BackendError(UsageError):
    """A back end or extra that this machine or environment does not have."""


class ConfigError(UsageError):
    """A configuration with an unknown key or a value out of range."""


class NoRoomError(ConfigError):
    """A model, or a step of its training, that needs more memory than there is."""


class DataError(TinygradChatError):
    """A corpus that cannot be used."""

    exit_code = 2


class VocabularyError(DataError):
    """Text with a character that the tokenizer does not know."""


class CheckpointError(TinygradChatError):
    """A checkpoint that is missing, damaged or does not fit the model."""

    exit_code = 2


class FormatError(TinygradChatError):
    """A file whose contents do not fit its kind: the message names the file, the `key` and what was expected there."""

    exit_code = 2

    def __init__(self, message: str, *, key: str = "") -> None:
        super().__init__(message)
        self.key = key


class StorageError(TinygradChatError):
    """Something that could not be written."""

    exit_code = 3


class MemoryShortageError(TinygradChatError):
    """Memory that a step asked for and did not get."""

    exit_code = 3


class RankError(TinygradChatError):
    """One of several ranks that has exited, hangs or is cut off: the others cannot continue without it."""

    exit_code = 3


class DivergedError(TinygradChatError):
    """A loss or gradient that is NaN or infinite: what was found, and what to do."""

    exit_code = 4

    def __init__(self, finding: str, advice: str = "") -> None:
        super().__init__(f"{finding}; {advice}" if advice else finding)
        self.finding = finding
        self.advice = advice


class MemoryGrowthError(TinygradChatError):
    """Memory use that grows from evaluation to evaluation."""

    exit_code = 5


class ShapeError(TinygradChatError, ValueError):
    """Arrays whose shapes do not fit an op."""
