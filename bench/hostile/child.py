"""One command in a copy of this process, which has imported all of it: as `tgc` runs it, in bounds and watched.

POSIX alone can copy a process. What a copy starts with costs nothing, so that thousands of commands take minutes.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import resource
import select
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

import psutil

from tinygrad_chat.cli import main
from tinygrad_chat.files import CACHE_VARIABLE

LONGEST = 20.0  # seconds of work, or of waiting for something
BUSY = 10  # times as long on a machine that has not had that much to give
MAX_ADDRESSES = 3 << 29  # bytes beyond those of this process: what asks for all memory ends at that
MAX_WRITTEN = 64 << 20  # bytes of a file
CAPABILITIES = 0x20080522  # the version of capset(2)


@dataclass(frozen=True)
class Ended:
    """How a command ended: `code` is None where it hung, negative where a signal killed it.

    `memory` is the most that it held beyond what it started with, in bytes.
    """

    arguments: Sequence[str]
    code: int | None
    out: str
    err: str
    seconds: float
    memory: int


def attempt(arguments: Sequence[str], folder: Path, *, longest: float = LONGEST) -> Ended:
    """Run `tgc` with the arguments in the folder and return how it ended. Nothing of it is left running."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        ended, open_meanwhile = os.pipe()
        began = time.monotonic()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of copying a process with threads: they sleep
            child = os.fork()
        if child == 0:
            os.write(open_meanwhile, _held().to_bytes(8, "big"))
            _become(arguments, folder, out, err)
        os.close(open_meanwhile)
        held = int.from_bytes(os.read(ended, 8), "big")
        try:
            in_time = _wait(child, ended, longest)
            seconds = time.monotonic() - began
        finally:
            os.close(ended)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child, signal.SIGKILL)  # whatever it has started, too
            _, status, used = os.wait4(child, 0)
        peak = used.ru_maxrss << (0 if sys.platform == "darwin" else 10)
        code = os.waitstatus_to_exitcode(status) if in_time else None
        return Ended(arguments, code, _content(out), _content(err), seconds, max(0, peak - held))


def _held() -> int:
    """Return the bytes that this process holds. A copy starts without those pages of files that it can read again."""
    return psutil.Process().memory_info().rss


def _wait(child: int, ended: int, longest: float) -> bool:
    """Wait until `ended` says that a child has ended; return whether it did within its time.

    A child that the machine lets work only now and then has not hung yet.
    """
    worked = -1.0
    for _ in range(BUSY):
        if select.select([ended], [], [], longest)[0]:
            return True
        before, worked = worked, _processor_seconds(child)
        if worked >= longest or worked - before < longest / 100:
            return False
    return False


def _processor_seconds(child: int) -> float:
    """Return how long a process and those that it started have worked."""
    process, seconds = psutil.Process(child), 0.0
    for each in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            seconds += sum(each.cpu_times()[:2])
    return seconds


def _content(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(MAX_WRITTEN).decode(errors="surrogateescape")


def _become(arguments: Sequence[str], folder: Path, out: IO[bytes], err: IO[bytes]) -> NoReturn:
    """Be `tgc` until it ends, and then end."""
    code: object = 1
    try:
        os.setsid()
        os.chdir(folder)
        os.environ[CACHE_VARIABLE] = str(folder / "cache")
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, file in ((1, out), (2, err)):
            os.dup2(file.fileno(), number)
        _open_standard_streams()
        sys.argv = ["tgc", *arguments]
        _complain_as_usual()
        _limit()
        _be_nobody_special()
        main(arguments)
        code = 0
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code if isinstance(code, int) else code is not None)


def _open_standard_streams() -> None:
    """Make new ones, which nobody here has written to; what Python keeps of them keeps them open."""
    sys.stdin = sys.__stdin__ = os.fdopen(0)
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w")
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w")


def _complain_as_usual() -> None:
    """Let Python say what it says in a program that asks for nothing else, whatever this one asked for."""
    warnings.resetwarnings()
    for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", category)
    warnings.showwarning = lambda *warning: print(warnings.formatwarning(*warning[:4]), end="", file=sys.stderr)
    faulthandler.disable()
    sys.unraisablehook, threading.excepthook = sys.__unraisablehook__, threading.__excepthook__


def _limit() -> None:
    most = psutil.Process().memory_info().vms + MAX_ADDRESSES
    for kind, bound in ((resource.RLIMIT_AS, most), (resource.RLIMIT_FSIZE, MAX_WRITTEN), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(ValueError, OSError):  # a system without it, or with a stricter one
            resource.setrlimit(kind, (bound, bound))


def _be_nobody_special() -> None:
    """Give up what root may do, so that a file without permissions cannot be read, either."""
    if sys.platform.startswith("linux") and os.geteuid() == 0:
        header, none = (ctypes.c_uint32 * 2)(CAPABILITIES, 0), (ctypes.c_uint32 * 6)()
        ctypes.CDLL(None).capset(header, none)
