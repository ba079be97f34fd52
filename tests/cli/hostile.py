"""Texts that speak to a terminal, a terminal and a pipe to see them on, and a folder in which they stand everywhere."""

from __future__ import annotations

import io
import json
import os
import re
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cli.conftest import TINY_BIGRAM
from tinygrad_chat import formatting
from tinygrad_chat.cli.app import run
from tinygrad_chat.cli.streams import open_standard_streams
from tinygrad_chat.runs.checkpoint import DIGESTS
from tinygrad_chat.runs.folder import RunFolder

MARK = "zq7"
SPEAKING = (  # each may stand in the name of a file
    "\x1b]0;OWNED\x07",  # the title of the window
    "\x1b]52;c;T1dO\x07",  # the clipboard
    "\x1b]8;;evil:x\x1b\\",  # a link
    "\x1bP1;OWNED\x1b\\",  # a string for the device
    "\x1b[38;5;123m",  # a colour, and by C1
    "\x9b31m",
    "\x9d0;OWNED\x9c",
    "\r\x08\x7f",  # writing over what stands there
    "\u202e\u2066\u2028",  # turning it round
)
HOSTILE = f"[red]{MARK}[/]%s%n{{0}}{{:>1900000000}}:smile:{''.join(SPEAKING)}"
NAME = f"[red]{MARK}{''.join(SPEAKING)}"  # a shorter one

OURS = re.compile(
    r"\x1b\[(?!38;5;123)[0-9;]*m|\x1b\[\?25[hl]|\x1b\[[0-9]*[AK]|\x1b\]8;[^\x1b]*;(file:[!-~]*)?\x1b\\|\r"
)
"""The escape sequences that rich and we write on a terminal."""


class Watched:
    """What a command wrote to a terminal or a pipe, standard output and error together."""

    def __init__(self, kind: str) -> None:
        self.kind, self.shown = kind, ""
        if kind == "terminal":
            self._reader, self._writer = pytest.importorskip("pty").openpty()
        else:
            self._reader, self._writer = os.pipe()

    def run(self, monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str]) -> int:
        """Run a command as `main` does, with its standard streams leading here; return its exit code."""
        pieces: list[bytes] = []
        thread = threading.Thread(target=self._read, args=[pieces])
        thread.start()
        try:
            with monkeypatch.context() as patch:
                patch.setattr("warnings.showwarning", None)
                files = [os.fdopen(os.dup(self._writer), "wb", 0) for _ in range(2)]
                streams = [io.TextIOWrapper(file, encoding="utf-8", write_through=True) for file in files]
                patch.setattr(sys, "stdout", streams[0])
                patch.setattr(sys, "stderr", streams[1])
                open_standard_streams()
                code = run(arguments)
                for stream in streams:
                    stream.close()
        finally:
            os.close(self._writer)
            thread.join()
            os.close(self._reader)
        self.shown = b"".join(pieces).decode()
        return code

    def _read(self, pieces: list[bytes]) -> None:
        try:
            while piece := os.read(self._reader, 1 << 16):
                pieces.append(piece)
        except OSError:  # how Linux reports the end of a terminal
            return

    def faults(self) -> list[str]:
        """Return what of the hostile text arrived as more than letters."""
        rest = OURS.sub("", self.shown) if self.kind == "terminal" else self.shown
        found = [piece for piece in SPEAKING if piece in self.shown] + formatting.NOT_PRINTABLE.findall(rest)
        # [red] stands before the mark, as such or quoted for a shell or an address: nobody took it for a colour.
        markup = [
            where for where in re.findall(rf"(.{{0,8}}){MARK}", rest) if not where.endswith(("[red]", "5d", "5D"))
        ]
        return found + markup


def write_received(folder: Path) -> None:
    """Write, below a folder, what a stranger may hand over: runs, texts, configurations and weights."""
    text = folder / f"{NAME}.txt"
    text.write_text(HOSTILE * 8, encoding="utf-8", newline="")
    hostile = RunFolder(folder / "runs" / NAME)
    for path in (folder / "runs" / "plain", hostile.path):
        assert run(["train", *TINY_BIGRAM, "--data", str(text), "--out", str(path), "--quiet"]) == 0
    entries = json.loads(hostile.environment.read_bytes())
    entries[0] |= {HOSTILE: HOSTILE, "device": HOSTILE, "arguments": ["train", HOSTILE]}
    hostile.environment.write_text(json.dumps(entries))
    hostile.write_outcome("failed", step=4, seconds=1.0, reason=HOSTILE)
    rolled_back = {"step": 3, "rolled_back_from": 4, "reason": HOSTILE}
    with hostile.log.open("a") as log:
        log.write(json.dumps({**rolled_back, HOSTILE: HOSTILE}) + "\n")


def damage_checkpoints(folder: Path) -> None:
    """Let each checkpoint of a run be none."""
    for digests in folder.glob(f"checkpoints/*/{DIGESTS}"):
        digests.write_text("")
