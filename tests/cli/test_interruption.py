"""Ended from outside: one line, a shell's exit code, nothing lost, at whatever moment."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import TINY_BIGRAM
from tinygrad_chat.cli.app import COMMANDS

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows has no signals for one process")

AT_AN_IMPORT = """
import os, sys
number, moment, *arguments = sys.argv[1:]
from tinygrad_chat.cli import main
imports = 0
def count(event, _):
    global imports
    imports += event == "import"
    if event == "import" and imports == int(moment):
        os.kill(os.getpid(), int(number))
sys.addaudithook(count)
main(arguments)
"""


def ended(program: str, *arguments: object) -> tuple[int, str]:
    """Run a program; return its exit code and what it wrote to standard error."""
    done = subprocess.run([sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True)
    return done.returncode, done.stderr


BEFORE_ANYTHING = """
import os, signal, sys
sys.modules.pop("signal")
class Found:
    def find_spec(name, *_):
        if name in sys.argv[1:]:
            os.kill(os.getpid(), signal.SIGINT)
            sum(range(1000))
sys.meta_path.insert(0, Found)
import tinygrad_chat.__main__
"""


@pytest.mark.parametrize("module", ["signal", "tinygrad_chat.cli", "tinygrad_chat.cli.interruption"])
def test_ctrl_c_before_anything_has_begun_shows_nothing(module: str):
    assert ended(BEFORE_ANYTHING, module) == (-signal.SIGINT, "")


def test_python_has_little_to_load_before_ctrl_c_has_a_handler():
    program = "import sys; before = set(sys.modules); import tinygrad_chat; print(*sys.modules.keys() - before)"
    done = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"tinygrad_chat", "__future__"}


@pytest.mark.profile("ci")
@pytest.mark.parametrize("moment", [1, 2, 40, 80, 200, 500])
def test_ctrl_c_while_it_starts_is_one_line(moment: int, tmp_path: Path):
    command = ["train", *TINY_BIGRAM, "--out", tmp_path / "r"]
    assert ended(AT_AN_IMPORT, signal.SIGINT, moment, *command) == (130, "tgc: interrupted\n")


CALLS = {
    **{name: [] for name in COMMANDS},
    "ablate": ["--vary", "lr"],
    "chat": ["-p", "a"],
    "compare": ["a", "b"],
    "data": ["list"],
    "export": ["nanochat", "a", "a.safetensors"],
    "graph": ["a*b"],
    "import": ["a.safetensors"],
    "tokenizer": ["compare", "bytes"],
}


@pytest.mark.profile("ci")
@pytest.mark.parametrize("command", COMMANDS)
def test_ctrl_c_ends_each_command_with_one_line(command: str):
    assert ended(AT_AN_IMPORT, signal.SIGINT, 300, command, *CALLS[command]) == (130, "tgc: interrupted\n")


@pytest.mark.profile("ci")
def test_other_signals_say_which_one_it_was():
    assert ended(AT_AN_IMPORT, signal.SIGTERM, 250, "doctor") == (143, "tgc: interrupted by SIGTERM\n")
    assert ended(AT_AN_IMPORT, signal.SIGHUP, 250, "doctor") == (129, "tgc: interrupted by SIGHUP\n")


MOMENTS_OF_THEIR_OWN = """
import atexit, os, signal, sys, threading
import tinygrad_chat.cli.app as app
from tinygrad_chat.cli import main
from tinygrad_chat.cli.interruption import end_at_once, on_signals, stop_on_signals

def interrupt(number=signal.SIGINT):
    os.kill(os.getpid(), number)

class Finalised:
    def __del__(self):
        interrupt()
        sum(range(1000))

def in_a_finaliser():
    Finalised()

def while_unwinding():
    try:
        interrupt()
        sum(range(1000))
    finally:
        try:
            interrupt()
            sum(range(1000))
        except BaseException:
            print("a second signal was an exception, too", file=sys.stderr)

def at_the_same_time():
    with stop_on_signals(print):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
        interrupt(signal.SIGTERM)
        interrupt()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT, signal.SIGTERM])

def while_it_says_so():
    def write_slowly(*arguments, write=os.write):
        os.write = write
        write(*arguments)
        interrupt(signal.SIGTERM)
        sum(range(1000))
    on_signals(end_at_once)
    os.write = write_slowly
    interrupt()

def a_third_time():
    try:
        with stop_on_signals(print):
            interrupt()
            sum(range(1000))
            interrupt()
            sum(range(1000))
    finally:
        try:
            interrupt()
            sum(range(1000))
        except BaseException:
            print("a third signal was an exception, too", file=sys.stderr)

def after_it_was_said():
    atexit.register(lambda: interrupt(signal.SIGTERM) or sum(range(1000)))
    interrupt()
    sum(range(1000))

def at_the_end():
    threading.Thread(target=lambda: threading.main_thread().join() or interrupt()).start()

def under_nohup():
    interrupt(signal.SIGHUP)

moment = sys.argv[1]
if moment == "under_nohup":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
app.run = lambda _: globals()[moment]() or 7
main()
"""


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        ("in_a_finaliser", (130, "tgc: interrupted\n")),
        ("while_unwinding", (130, "tgc: interrupted\n")),
        ("at_the_same_time", (143, "tgc: interrupted by SIGTERM\n")),
        ("while_it_says_so", (130, "tgc: interrupted\n")),
        ("after_it_was_said", (143, "tgc: interrupted\n")),
        ("a_third_time", (130, "tgc: interrupted\n")),
        ("under_nohup", (7, "")),
    ],
)
def test_a_signal_at_a_moment_of_its_own_leaves_no_traceback(moment: str, expected: tuple[int, str]):
    assert ended(MOMENTS_OF_THEIR_OWN, moment) == expected


def test_a_signal_after_the_end_leaves_no_traceback():
    code, err = ended(MOMENTS_OF_THEIR_OWN, "at_the_end")
    assert (code, err) in [(7, ""), (130, "tgc: interrupted\n")]


@pytest.mark.profile("ci")
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
def test_training_saves_before_it_says_that_its_output_has_nowhere_to_go(tmp_path: Path):
    command = [sys.executable, "-m", "tinygrad_chat", "train", *TINY_BIGRAM, "--out", "r"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True)
    remedy = "everything is saved, resume with: tgc train --resume --out r"
    assert (done.returncode, done.stderr) == (3, f"tgc: standard output: No space left on device; {remedy}\n")
    assert json.loads((tmp_path / "r/outcome.json").read_bytes())["outcome"] == "interrupted"
    assert (tmp_path / "r/checkpoints/step-000000/weights.safetensors").exists()


@pytest.mark.profile("ci")
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
@pytest.mark.parametrize("command", ["--help", "doctor", "--version"])
def test_a_full_disk_below_standard_output_is_one_line_that_says_so(command: str):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-m", "tinygrad_chat", command], stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (3, b"tgc: standard output: No space left on device\n")


IN_A_SESSION = "import fcntl, termios; fcntl.ioctl(1, termios.TIOCSCTTY, 0); from tinygrad_chat.cli import main; main()"


@pytest.mark.profile("ci")
def test_training_saves_when_its_terminal_goes(tmp_path: Path):
    """As where an ssh is dropped: SIGHUP comes, and nothing can be shown any more."""
    pty = pytest.importorskip("pty")
    main, terminal = pty.openpty()
    command = [sys.executable, "-c", IN_A_SESSION, "train", *TINY_BIGRAM, "--steps", "1000000", "--eval-every", "9999"]
    with subprocess.Popen(
        [*command, "--out", "r"],
        cwd=tmp_path,
        stdin=terminal,
        stdout=terminal,
        stderr=subprocess.PIPE,
        env={**os.environ, "TERM": "xterm"},
        start_new_session=True,
    ) as process:
        os.close(terminal)
        shown = b""
        while not re.search(rb"step [1-9]", shown):
            shown += os.read(main, 4096)
        os.close(main)
        assert process.stderr
        err = process.stderr.read()
    assert (process.returncode, err) == (129, b"")
    outcome = json.loads((tmp_path / "r/outcome.json").read_bytes())
    assert outcome["outcome"] == "interrupted"
    assert (tmp_path / f"r/checkpoints/step-{outcome['step']:06d}/weights.safetensors").exists()
