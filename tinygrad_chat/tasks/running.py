"""Run an untrusted program in a subprocess with limits; docs/security.md says what these guarantee.

The program and its checks are sent through a pipe. The program passes if the checks run to their end: the subprocess
then writes a random word that the program was not given. So a program that merely exits has not passed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile

SECONDS = 5.0
MEMORY = 256 << 20  # bytes
LARGEST_OUTPUT = 1 << 16  # bytes of the file that takes the output

STARTER = """
import sys
seconds, memory, output = map(int, sys.argv[1:])
program, checks, word = sys.stdin.read().split(chr(0))
try:
    import resource
    for name, most in (("CPU", seconds), ("AS", memory), ("FSIZE", output), ("CORE", 0), ("NPROC", 0)):
        if hasattr(resource, "RLIMIT_" + name):
            resource.setrlimit(getattr(resource, "RLIMIT_" + name), (most, most))
except ImportError:
    pass
REFUSED = ("socket.", "subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system", "os.kill",
           "os.remove", "os.rename", "os.rmdir", "shutil.", "ctypes.", "urllib.")
def refuse(event, arguments):
    if event.startswith(REFUSED) or event == "open" and arguments[2] & 3:  # to write
        raise PermissionError(event)
sys.addaudithook(refuse)
names = {"__name__": "program"}
exec(compile(program, "program", "exec"), names)
exec(compile(checks, "checks", "exec"), names)
sys.__stdout__.flush()
sys.__stderr__.write(word)
"""
"""The code that the subprocess runs: it limits itself before it runs the program."""


def passes(program: str, checks: str, *, seconds: float = SECONDS, memory: int = MEMORY) -> bool:
    """Return whether `checks`, Python code that raises on an error, pass after `program` in the same namespace.

    The subprocess is limited to `seconds` and to `memory` bytes. It has an empty temporary working folder, no
    environment variables, and none of the user's packages.
    """
    if "\0" in program:
        return False
    word = secrets.token_hex(16)
    limits = (str(max(1, round(seconds))), str(memory), str(LARGEST_OUTPUT))
    with tempfile.TemporaryDirectory(prefix="tgc-program-") as folder, tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", "-c", STARTER, *limits],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=said,
            cwd=folder,
            env={},
            start_new_session=True,
        )
        try:
            text = "\0".join((program, checks, word)).encode("utf-8", "replace")
            process.communicate(text, timeout=seconds)
        except subprocess.TimeoutExpired:
            pass
        finally:
            _end(process)
        said.seek(max(0, said.seek(0, os.SEEK_END) - len(word)))
        return process.returncode == 0 and said.read() == word.encode()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process, and with it whatever it has started."""
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()
