"""The token store on a generated stream of text: how long it takes, how much memory, and how soon it is found again.

`python -m bench.token_store MEGABYTES TOKENIZER` prints all that `measure_store` finds, in JSON; TOKENIZER is a kind or
a path.

The stream is JSON, a document a row, of words as rare as in a language (Zipf), in documents of very different lengths.
Each sample is a fresh process. Resident memory is that of the process and of those that encode for it, ten times a
second; where it is flat, its maximum over each tenth of the time is the same, however long the stream.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from tinygrad_chat.files import CACHE_VARIABLE

SETTLED = 4  # seconds after which a file's times prove that it is the same
WORDS = 50_000  # different ones
ROWS = 2_000  # documents that are written at a time


def write_stream(path: Path, size: int, *, seed: int = 0) -> None:
    """Write documents of at least `size` bytes in all, one a row."""
    random = np.random.default_rng(seed)
    letters = np.array(list("etaoinshrdlucmfwygpbvkxqjz"))
    lengths = random.integers(1, 12, WORDS)
    words = np.array(["".join(random.choice(letters, length)) for length in lengths])
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < size:
            for length in random.lognormal(5.5, 1.2, ROWS).astype(int) + 1:
                text = " ".join(words[np.minimum(random.zipf(1.2, length), WORDS) - 1])
                file.write(json.dumps({"text": text}) + "\n")


def measure_store(size: int, tokenizer: str) -> dict[str, Any]:
    """Return what it takes to tokenize `size` bytes by a tokenizer, named by kind or path, and to start again."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stream.jsonl"
        write_stream(path, size)
        time.sleep(SETTLED)
        first, again = (_measure(path, tokenizer, Path(folder) / "cache") for _ in range(2))
        megabytes = path.stat().st_size / 1e6
    assert first["tokens"] == again["tokens"]
    return {
        "tokenizer": tokenizer,
        "megabytes": megabytes,
        "tokens": first["tokens"],
        "documents": first["documents"],
        "seconds": first["seconds"],
        "megabytes_a_second": megabytes / first["seconds"],
        "second_start_seconds": again["seconds"],
        "peak_mib": max(first["resident_mib"]),
        "resident_mib_by_tenth": first["resident_mib"],
    }


def _measure(path: Path, tokenizer: str, cache: Path) -> dict[str, Any]:
    """Open the text in a process of its own, and look at what it and its own processes hold."""
    with subprocess.Popen(
        [sys.executable, "-m", "bench.token_store", "--open", str(path), tokenizer],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, CACHE_VARIABLE: str(cache)},
    ) as process:
        samples = []
        while process.poll() is None:
            samples.append(_resident(process.pid))
            time.sleep(0.1)
        assert process.stdout is not None
        answer = json.loads(process.stdout.read())
    tenths = np.array_split(np.array(samples), 10)
    return {**answer, "resident_mib": [round(float(tenth.max()) / 2**20, 1) for tenth in tenths if tenth.size]}


def _resident(pid: int) -> int:
    """Return the bytes that a process and those below it hold; shared pages count for each."""
    size = 0
    try:
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            size += each.memory_info().rss
    except psutil.Error:  # one has ended
        pass
    return size


def _open(path: str, name: str) -> None:
    import tinygrad_chat
    from tinygrad_chat.text.data import open_data

    tokenizer = tinygrad_chat.load_tokenizer(name) if Path(name).exists() else name
    began = time.perf_counter()
    store = open_data(path, tokenizer)
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "tokens": len(store.tokens), "documents": store.contents.documents}))


if __name__ == "__main__":
    if sys.argv[1] == "--open":
        _open(*sys.argv[2:])
    else:
        print(json.dumps(measure_store(int(float(sys.argv[1]) * 1e6), sys.argv[2]), indent=1))
