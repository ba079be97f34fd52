"""What depends on the terminal: colour, width, completion, and that there may be none."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tinygrad_chat.cli.app import COMMANDS, run

TGC = (sys.executable, "-m", "tinygrad_chat")


def on_a_terminal(*arguments: str, **environment: str) -> str:
    """Return what a command shows on a terminal of its own."""
    pty = pytest.importorskip("pty")
    main, terminal = pty.openpty()
    inherited = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
    with subprocess.Popen([*TGC, *arguments], stdout=terminal, stderr=terminal, env={**inherited, **environment}):
        os.close(terminal)
        shown = b""
        while piece := _read(main):
            shown += piece
    os.close(main)
    return shown.decode().replace("\r\n", "\n")


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # how Linux reports the end of a terminal
        return b""


RED = "\x1b[1;31mtgc:\x1b[0m no such command"


@pytest.mark.profile("ci")
@pytest.mark.parametrize(
    ("environment", "beginning"),
    [
        ({"TERM": "xterm"}, RED),
        ({"TERM": "xterm", "NO_COLOR": ""}, RED),
        ({"TERM": "xterm", "NO_COLOR": "1"}, "tgc: no such command"),
        ({"TERM": "dumb"}, "tgc: no such command"),
    ],
)
def test_an_error_has_a_colour_where_one_is_wanted(environment: Mapping[str, str], beginning: str):
    assert on_a_terminal("nonsense", **environment).startswith(beginning)


@pytest.mark.profile("ci")
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_h_is_help_everywhere_and_imports_no_numpy_and_no_rich(command: str):
    program = (
        "import sys; from tinygrad_chat.cli.app import run; "
        "codes = [run([*sys.argv[1:], flag]) for flag in ('-h', '--help')]; "
        "assert not {'numpy', 'rich'} & set(sys.modules); sys.exit(any(codes))"
    )
    called = [sys.executable, "-c", program, *[command] * bool(command)]
    shown = subprocess.run(called, capture_output=True, text=True, check=True).stdout
    half = len(shown) // 2
    assert shown[:half] == shown[half:]
    assert shown.startswith(f"Usage: tgc {command}".strip())


def completed(words: str) -> list[str]:
    environment = {"_TGC_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    return subprocess.run(
        TGC, capture_output=True, text=True, env={**os.environ, **environment}, check=True
    ).stdout.split()


@pytest.mark.profile("ci")
def test_a_shell_completes_commands_options_and_choices():
    assert completed("tgc re") == ["report"]
    assert completed("tgc train --tok") == ["--tokenizer"]
    assert completed("tgc train --tokenizer ") == ["auto", "characters", "bytes", "bpe"]


@pytest.mark.skipif(os.name != "posix", reason="bash")
def test_completion_is_installed_for_a_shell(tmp_path: Path):
    install = ["bash", "-c", f"{sys.executable} -m tinygrad_chat --install-completion; exit $?"]
    subprocess.run(install, env={**os.environ, "HOME": str(tmp_path)}, check=True, capture_output=True)
    assert "_TGC_COMPLETE=complete_bash" in (tmp_path / ".bash_completions/tgc.sh").read_text()


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_of_the_list_is_there(command: str, capsys: pytest.CaptureFixture[str]):
    assert run([command, "--nonsense"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("tgc: no such option: --nonsense")
    assert error.endswith(f"; see tgc {command} --help\n")
