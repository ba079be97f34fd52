"""Documents encoded by several processes, for tokenizers in pure Python: in order, whatever their number.

`python -m tinygrad_chat.text.encoding_processes` is one of them. Its first line of input is a tokenizer, in JSON; every
further line is a list of texts, and the answer to it is how many tokens each has, int64, and then the tokens. They take
turns. One that dies, or meets a text that it cannot encode, is not asked again: this process encodes in its place, and
so meets the same error itself. Each ends with its input, and so with the process that has started it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path

import numpy as np

from tinygrad_chat.text.tokenizers import Tokenizer, tokenizer_from_state

BYTES_EACH = 2 << 20  # of a corpus: for less, a process that starts would take longer than it helps
MOST_PROCESSES = 16  # this one reads, hashes and writes for them all: with more they would wait for it
CHUNK = 1 << 18  # characters that a process is given at a time
PLACE = str(Path(__file__).parents[2])

Texts = list[str | None]
"""Pieces of document after document that no token crosses; None stands where a document begins."""


def how_many_processes(tokenizer: Tokenizer, size: int) -> int:
    """Return how many processes are to encode a corpus of `size` bytes: one for each core, where they are worth it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, MOST_PROCESSES, size // BYTES_EACH)) if tokenizer.slow else 1


def encode_in_processes(
    documents: Iterable[Iterable[str]], tokenizer: Tokenizer, processes: int
) -> Generator[np.ndarray | None]:
    """Yield the tokens of document after document, in pieces, and None where one begins."""
    with contextlib.ExitStack() as stack:
        encoders = deque(stack.enter_context(_Encoder(tokenizer)) for _ in range(processes))
        for texts in _chunks(documents, tokenizer):
            encoders.rotate(-1)
            yield from encoders[-1].take()  # it was asked before all the others
            encoders[-1].ask(texts)
        for encoder in encoders:
            yield from encoder.take()


def _chunks(documents: Iterable[Iterable[str]], tokenizer: Tokenizer) -> Iterator[Texts]:
    texts: Texts = []
    size = 0
    for document in documents:
        for text in itertools.chain([None], _whole_or_cut(document, tokenizer)):
            texts.append(text)
            size += len(text or "") + 1
            if size >= CHUNK:
                yield texts
                texts, size = [], 0
    yield texts


def _whole_or_cut(document: Iterable[str], tokenizer: Tokenizer) -> Iterator[str]:
    """Yield a short document whole, without the tokenizer's looking for where it may be cut."""
    pieces = iter(document)
    begun, size = [], 0
    for piece in pieces:
        begun.append(piece)
        size += len(piece)
        if size > CHUNK:
            yield from tokenizer.cut_document(itertools.chain(begun, pieces))
            return
    yield "".join(begun)


class _Encoder:
    """A process that encodes what it is asked to, while this one goes on."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._texts: Texts = []
        self._unsent = _line(tokenizer.state())
        path = os.pathsep.join(filter(None, [PLACE, os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tinygrad_chat.text.encoding_processes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._questions, self._answers = self._process.stdin, self._process.stdout

    def __enter__(self) -> _Encoder:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        for stream in (self._questions, self._answers):
            with contextlib.suppress(OSError):  # of what was not sent
                stream.close()
        self._process.wait()

    def ask(self, texts: Texts) -> None:
        """Let the process encode some texts; those before must have been taken."""
        self._texts = texts
        with contextlib.suppress(OSError):  # where it is dead, and gives no answer either
            self._questions.write(self._unsent + _line([text for text in texts if text is not None]))
            self._questions.flush()
            self._unsent = b""

    def take(self) -> Iterator[np.ndarray | None]:
        """Yield the tokens of the texts that were asked for last, and None where a document begins."""
        texts, self._texts = self._texts, []
        answers = self._read(sum(text is not None for text in texts))
        for text in texts:
            if text is None:
                yield None
            else:
                yield self._tokenizer.encode(text) if answers is None else next(answers)

    def _read(self, count: int) -> Iterator[np.ndarray] | None:
        """Return the tokens of so many texts, None where the process has not sent them all."""
        dtype = np.dtype(np.min_scalar_type(self._tokenizer.size - 1))
        lengths = np.frombuffer(self._answers.read(8 * count), np.uint8)
        if lengths.size < 8 * count:
            return None
        ends = np.cumsum(lengths.view(np.int64))
        size = dtype.itemsize * int(ends[-1] if count else 0)
        tokens = self._answers.read(size)
        return iter(np.split(np.frombuffer(tokens, dtype), ends[:-1])) if len(tokens) == size else None


def _line(message: object) -> bytes:
    return json.dumps(message).encode() + b"\n"


def main() -> None:
    """Encode what comes in until nothing more does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that has started this one
    tokenizer = tokenizer_from_state(json.loads(sys.stdin.buffer.readline()))
    for line in sys.stdin.buffer:
        encoded = [tokenizer.encode(text) for text in json.loads(line)]
        sys.stdout.buffer.write(np.array([len(tokens) for tokens in encoded], np.int64).data)
        for tokens in encoded:
            sys.stdout.buffer.write(np.ascontiguousarray(tokens).data)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
