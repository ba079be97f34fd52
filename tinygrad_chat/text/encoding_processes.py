"""Encodes documents in several processes, for tokenizers in pure Python: in order, whatever their number.

`python -m tinygrad_chat.text.encoding_processes` is one of them. Its first line of input is a tokenizer, in JSON; every
further line is a list of texts, answered by the number of tokens of each (int64), then the tokens. A thread per worker
waits for its answers, so that no worker blocks another. A worker that dies, or gets a text that it cannot encode, does
not answer: this process encodes in its place, and so raises the same error itself.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue

import numpy as np

from tinygrad_chat.backend.host_threads import count_cores
from tinygrad_chat.text.processes import as_line, asked_of_this_process, end_process, pipes_of, start_process
from tinygrad_chat.text.tokenizers import Tokenizer, tokenizer_from_state

BYTES_EACH = 2 << 20  # of a corpus, per process: for less, starting one costs more than it saves
MAX_PROCESSES = 16  # this one reads, hashes and writes for all: more would wait for it
CHUNK = 1 << 18  # characters sent to a process at a time
WAITING = 2  # chunks queued per process, so that the next one is ready

Texts = list[str | None]
"""Pieces of one document after another, cut where no token spans two; None marks the beginning of each document."""


def how_many_processes(tokenizer: Tokenizer, size: int) -> int:
    """Return how many processes should encode a corpus of `size` bytes: up to one per core, if they are worth it."""
    return max(1, min(count_cores(), MAX_PROCESSES, size // BYTES_EACH)) if tokenizer.slow else 1


def encode_in_processes(
    documents: Iterable[Iterable[str]], tokenizer: Tokenizer, processes: int
) -> Generator[np.ndarray | None]:
    """Yield the tokens of one document after another, in pieces, and None where a document begins."""
    with contextlib.ExitStack() as stack:
        threads = stack.enter_context(ThreadPoolExecutor(processes))
        idle: SimpleQueue[_Encoder] = SimpleQueue()
        for _ in range(processes):
            idle.put(stack.enter_context(_Encoder(tokenizer)))

        def encode(texts: list[str]) -> list[np.ndarray] | None:
            encoder = idle.get()
            try:
                return encoder.encode(texts)
            finally:
                idle.put(encoder)

        asked: deque[tuple[Texts, Future[list[np.ndarray] | None]]] = deque()
        for texts in _chunks(documents, tokenizer):
            asked.append((texts, threads.submit(encode, [text for text in texts if text is not None])))
            if len(asked) > WAITING * processes:
                yield from _answered(*asked.popleft(), tokenizer)
        while asked:
            yield from _answered(*asked.popleft(), tokenizer)


def _answered(
    texts: Texts, answer: Future[list[np.ndarray] | None], tokenizer: Tokenizer
) -> Iterator[np.ndarray | None]:
    """Yield the tokens of the texts, and None where a document begins; if there is no answer, encode them here."""
    found = answer.result()
    tokens = iter([] if found is None else found)
    for text in texts:
        if text is None:
            yield None
        else:
            yield tokenizer.encode(text) if found is None else next(tokens)


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
    """Yield a long document as the tokenizer cuts it, and a short one whole, which saves looking for cuts."""
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
    """A worker process that encodes the texts it is sent."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._dtype = np.dtype(np.min_scalar_type(tokenizer.size - 1))
        self._unsent = as_line(tokenizer.state())
        self._process = start_process("tinygrad_chat.text.encoding_processes")
        self._questions, self._answers = pipes_of(self._process)

    def __enter__(self) -> _Encoder:
        return self

    def __exit__(self, *_: object) -> None:
        end_process(self._process)

    def encode(self, texts: list[str]) -> list[np.ndarray] | None:
        """Return the tokens of each text, None if the process has not sent them all."""
        with contextlib.suppress(OSError, ValueError):  # if it is dead, or its pipes are closed
            self._questions.write(self._unsent + as_line(texts))
            self._questions.flush()
            self._unsent = b""
            lengths = np.frombuffer(self._answers.read(8 * len(texts)), np.uint8)
            if lengths.size == 8 * len(texts):
                ends = np.cumsum(lengths.view(np.int64))
                size = self._dtype.itemsize * int(ends[-1] if texts else 0)
                tokens = self._answers.read(size)
                if len(tokens) == size:
                    return np.split(np.frombuffer(tokens, self._dtype), ends[:-1]) if texts else []
        return None


def main() -> None:
    """Encode the texts in each line of standard input, until it ends."""
    asked = asked_of_this_process()
    tokenizer = tokenizer_from_state(next(asked))
    for texts in asked:
        encoded = [tokenizer.encode(text) for text in texts]
        sys.stdout.buffer.write(np.array([len(tokens) for tokens in encoded], np.int64).data)
        for tokens in encoded:
            sys.stdout.buffer.write(np.ascontiguousarray(tokens).data)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
