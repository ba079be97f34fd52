"""The server as a process, and the runs whose models it has."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

from bench.serving.client import HOST

TINY = "--tokenizer bpe --vocabulary 300 --layers 2 --heads 2 --width 32 --context 128 --batch-size 8 --steps 20"


def said(role: str, content: str) -> dict[str, str]:
    """Return a message of a chat."""
    return {"role": role, "content": content}


def tiny_run(folder: Path) -> Path:
    """Train a model that can chat, not that it says much, and return its run."""
    chats = folder / "chats.jsonl"
    lines = ({"messages": [said("user", f"{each}?"), said("assistant", f"It is {each}.")]} for each in range(200))
    chats.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return train(folder / "tiny", *TINY.split(), "--data", str(chats))


def train(run: Path, *flags: str) -> Path:
    """Train a run, and return it."""
    command = [sys.executable, "-m", "tinygrad_chat", "train", *flags, "--out", str(run), "--quiet"]
    subprocess.run(command, check=True, capture_output=True)
    return run


@contextlib.contextmanager
def serving(run: Path, *flags: str) -> Iterator[tuple[int, psutil.Popen]]:
    """Serve a run's model at a free port, in a process; yield the two. It is ended at the latest here."""
    command = [sys.executable, "-m", "tinygrad_chat", "serve", str(run), "--port", "0", *flags]
    with psutil.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            lines = []
            for line in process.stdout:
                lines.append(line)
                if found := re.search(rf"http://{re.escape(HOST)}:(\d+)", line):
                    break
            else:
                raise SystemExit(f"{' '.join(command)}: {''.join(lines)}")
            yield int(found[1]), process
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def end(process: psutil.Popen) -> int:
    """Ask the server to end, and return its exit code."""
    process.send_signal(signal.SIGTERM)
    return process.wait(timeout=60)
