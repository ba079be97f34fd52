"""What can go wrong for a user, as one tree. Each message says what was expected, what came and what to do.

    TinygradChatError               any of the below; `exit_code` is what `tgc` ends with
    ├── UsageError           2      an option or argument that cannot work
    │   ├── BackendError     2      no GPU, no CuPy, the wrong wheel, or an extra that is not installed
    │   └── ConfigError      2      a configuration with an unknown key or a value out of range
    │       └── NoRoomError  2      a model or a step that takes more memory than there is, found before it is begun
    ├── DataError            2      an empty, too short or undecodable corpus
    │   └── VocabularyError  2      a character that the tokenizer does not know
    ├── CheckpointError      2      nothing to load, or a file that is damaged or does not fit
    ├── FormatError          2      a file of a run, or one beside it, that does not hold what it must
    ├── StorageError         3      the disk is full or a folder cannot be written
    ├── MemoryShortageError  3      no room, in memory or on the device, for what a step needs
    ├── RankError            3      one of several ranks that has ended, hangs or is cut off
    ├── DivergedError        4      a loss or gradient that is NaN or infinite
    ├── MemoryGrowthError    5      memory that grows from evaluation to evaluation
    └── ShapeError           1      arrays whose shapes do not fit an op (also a ValueError)

Ctrl-C ends `tgc` with 130, SIGTERM with 143, SIGHUP with 129 and SIGUSR1 with 138; training leaves a checkpoint before.
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
    """A model, or a step of its training, that takes more memory than there is."""


class DataError(TinygradChatError):
    """A corpus that cannot be used."""

    exit_code = 2


class VocabularyError(DataError):
    """Text with a character that the tokenizer does not know."""


class CheckpointError(TinygradChatError):
    """A checkpoint that is missing, damaged or does not fit the model."""

    exit_code = 2


class FormatError(TinygradChatError):
    """A file that does not hold what its kind of file holds: which, under what `key`, and what was expected there."""

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
    """One of several ranks that has ended, hangs or is cut off: without it the others cannot go on."""

    exit_code = 3


class DivergedError(TinygradChatError):
    """A loss or gradient that is NaN or infinite: what was found, and what to do."""

    exit_code = 4

    def __init__(self, finding: str, advice: str = "") -> None:
        super().__init__(f"{finding}; {advice}" if advice else finding)
        self.finding = finding
        self.advice = advice


class MemoryGrowthError(TinygradChatError):
    """Memory that grows from evaluation to evaluation."""

    exit_code = 5


class ShapeError(TinygradChatError, ValueError):
    """Arrays whose shapes do not fit an op."""
