"""Generates embedded corpora once, each in a separate process, to train a tokenizer on all of them.

Such a process (corpus_worker.py) reports the word counts of its corpus, waits for the tokenizer that is trained on
them, and tokenizes the corpus with it: so the tokens are where `tokenize` will look for them. If one of the processes
dies, only time is lost: the caller then generates the corpora itself.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections import Counter
from collections.abc import Sequence
from queue import SimpleQueue
from threading import Thread
from typing import Any

from tinygrad_chat.text.corpora import Corpus
from tinygrad_chat.text.download import Progress
from tinygrad_chat.text.embedded import CORPORA
from tinygrad_chat.text.processes import as_line, end_process, messages_in, pipes_of, start_process
from tinygrad_chat.text.tokenizers import Tokenizer

MADE, WORDS = "made", "words"
"""What a process reports: how many conversations it has made so far, and how often each word occurs in them."""


def are_embedded(corpora: Sequence[Corpus]) -> bool:
    """Return whether all of the corpora are embedded, so that separate processes can generate them."""
    return all(corpus.stamp and not corpus.files and corpus.name in CORPORA for corpus in corpora)


class CorpusWorkers:
    """The processes that generate embedded corpora, given by name; `progress` is called as conversations are made."""

    def __init__(self, names: Sequence[str], pattern: str, split: str, progress: Progress | None = None) -> None:
        self._names, self._pattern, self._split = names, pattern, split
        self._progress = progress
        self._told: SimpleQueue[tuple[int, dict[str, Any] | None]] = SimpleQueue()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._threads: list[Thread] = []

    def __enter__(self) -> CorpusWorkers:
        for number, name in enumerate(self._names):
            try:
                process = start_process("tinygrad_chat.text.corpus_worker")
            except OSError:  # no resources for one more
                self._told.put((number, None))
                continue
            self._processes.append(process)
            _ask(process, {"corpus": name, "pattern": self._pattern, "split": self._split})
            self._threads.append(Thread(target=self._listen, args=(number, process), daemon=True))
            self._threads[-1].start()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
        for thread in self._threads:
            thread.join()
        for process in self._processes:
            end_process(process)

    def count_words(self) -> Counter[bytes] | None:
        """Return how often each pre-token occurs in the training documents of all corpora, as `count_words` does.

        Return None if a process has died.
        """
        words: Counter[bytes] = Counter()
        made, total = [0] * len(self._names), sum(CORPORA[name].count for name in self._names)
        waiting = len(self._names)
        while waiting:
            if self._progress is not None:
                self._progress("making", sum(made), total)
            number, told = self._told.get()
            if told is None:
                return None
            made[number] = told.get(MADE, made[number])
            if WORDS in told:
                words.update({word.encode(): times for word, times in told[WORDS].items()})
                waiting -= 1
        return words

    def tokenize(self, tokenizer: Tokenizer) -> None:
        """Have each process tokenize its corpus and cache the tokens; wait until all are done."""
        for process in self._processes:
            _ask(process, tokenizer.state())
        for thread in self._threads:
            thread.join()

    def _listen(self, number: int, process: subprocess.Popen[bytes]) -> None:
        """Queue what a process reports, and None after its last report."""
        with contextlib.suppress(OSError, ValueError):
            for told in messages_in(pipes_of(process)[1]):
                self._told.put((number, told))
        self._told.put((number, None))


def _ask(process: subprocess.Popen[bytes], message: object) -> None:
    """Send a request to a process; a dead one is ignored, as it will not answer."""
    with contextlib.suppress(OSError):
        questions, _ = pipes_of(process)
        questions.write(as_line(message))
        questions.flush()
