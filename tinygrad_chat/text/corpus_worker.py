"""`python -m tinygrad_chat.text.corpus_worker`: generates an embedded corpus, and keeps it until it is tokenized.

Its input is two lines: a corpus with its split and the pattern for words; then a tokenizer. Its output, which
corpus_workers.py reads: how many conversations are made so far, and then the word counts of those not held out.
"""

from __future__ import annotations

import dataclasses
import gc
import sys
from collections.abc import Callable, Iterator
from typing import Any

from tinygrad_chat.text.corpora import Corpus, open_corpus
from tinygrad_chat.text.corpus_workers import MADE, WORDS
from tinygrad_chat.text.data import tokenize
from tinygrad_chat.text.formats.rows import Document
from tinygrad_chat.text.learning import training_documents
from tinygrad_chat.text.processes import as_line, asked_of_this_process
from tinygrad_chat.text.tokenizers import tokenizer_from_state
from tinygrad_chat.text.tokenizers.bpe_training import count_words

OFTEN = 1000  # conversations from one progress report to the next

Tell = Callable[[dict[str, Any]], None]


def make(asked: Iterator[Any], tell: Tell) -> None:
    """Generate a corpus, report its word counts, and tokenize it, as the requests in `asked` say."""
    first = next(asked)
    corpus = _held(open_corpus(first["corpus"]), tell)
    words = count_words(training_documents(corpus, first["split"]), first["pattern"])
    tell({WORDS: {word.decode(): times for word, times in words.items()}})
    for state in asked:
        tokenize(corpus, tokenizer_from_state(state), first["split"])
        return


def _held(corpus: Corpus, tell: Tell) -> Corpus:
    """Return the same corpus with its documents in memory; report how many there are on the way."""
    documents = list[Document]()
    for document in corpus.documents():
        documents.append(document)
        if len(documents) % OFTEN == 0:
            tell({MADE: len(documents)})
    return dataclasses.replace(corpus, documents=lambda any_bytes=False: iter(documents))


def main() -> None:
    """Serve the process that started this one."""
    gc.disable()  # the documents have no cycles, only millions of objects to scan

    def tell(message: dict[str, Any]) -> None:
        sys.stdout.buffer.write(as_line(message))
        sys.stdout.buffer.flush()

    make(asked_of_this_process(), tell)


if __name__ == "__main__":
    main()
