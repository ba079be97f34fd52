"""A run of an ablation in its own subprocess, seen from the parent process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.experiments.planned import OUTPUT
from tinygrad_chat.files import explained, open_plain
from tinygrad_chat.formatting import as_json
from tinygrad_chat.text.processes import PLACE

COMMAND = (sys.executable, "-P", "-m", "tinygrad_chat.experiments.worker")
DEVICES = "CUDA_VISIBLE_DEVICES"
LAST_WORDS = 4096  # bytes


class Job:
    """The run at `path`, trained by a subprocess, on the GPU that CUDA calls `device` if given.

    Closing the subprocess's standard input tells it to stop, so it also stops when this process ends, for any reason.
    Its output is appended to output.txt.
    """

    def __init__(
        self, config: TrainingConfig, path: Path, *, device: str | None = None, confirmed: bool = False
    ) -> None:
        self.path = path
        self._explained = False
        with explained(path):
            path.mkdir(parents=True, exist_ok=True)
            output = open_plain(path / OUTPUT, "ab")
        with output:
            self._silent = output.tell()
            self._process = subprocess.Popen(
                [*COMMAND, str(path)], stdin=subprocess.PIPE, stdout=output, stderr=output, env=_environment(device)
            )
        assert self._process.stdin is not None
        self._input = self._process.stdin
        request = as_json({"settings": config.used_settings(), "confirmed": confirmed})
        with contextlib.suppress(OSError):  # it has ended already
            self._input.write(f"{request}\n".encode())
            self._input.flush()

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_: Any) -> None:
        """Stop it, and wait until it has saved a checkpoint and ended."""
        self.stop()
        self.wait()

    def stop(self) -> None:
        """Ask it to stop after its current step, with a checkpoint."""
        with contextlib.suppress(OSError):  # it has ended already
            self._input.close()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self.stop()
        self._process.wait()

    def wait(self) -> int:
        """Wait until it has ended; return its exit code, which is negative if a signal killed it."""
        code = self._process.wait()
        self.stop()  # close the pipe to its input
        if not self._explained:
            self._explained = True
            self._explain(code)
        return code

    def ended(self) -> bool:
        """Return whether it has ended."""
        return self._process.poll() is not None and self.wait() is not None

    def _explain(self, code: int) -> None:
        """Append to its output why it ended, if it could not say so itself."""
        with explained(self.path), open_plain(self.path / OUTPUT, "ab") as output:
            if code < 0:
                reason = ", as the system does when memory runs out" if -code == KILL else ""
                output.write(f"killed by {signal.Signals(-code).name}{reason}\n".encode())
            elif code and output.tell() == self._silent:
                output.write(f"ended with exit code {code} and no output\n".encode())


KILL = getattr(signal, "SIGKILL", None)  # missing on Windows


def _environment(device: str | None) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [PLACE, os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, **({} if device is None else {DEVICES: device})}


def last_words(path: Path) -> str:
    """Return the last line of output of the run at `path`, which may say why its process was killed."""
    with contextlib.suppress(OSError), open_plain(path / OUTPUT) as output:
        output.seek(max(0, output.seek(0, os.SEEK_END) - LAST_WORDS))
        lines = output.read().decode("utf-8", "replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
    return ""
