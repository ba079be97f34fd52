"""`python -m tinygrad_chat.text.making`: makes an embedded corpus, and holds it until it has become tokens.

Its input is two lines: which corpus, and how it and its words are split; then a tokenizer. Its output, as makers.py
reads it: how much is made so far, and then the words of what is not held out.
"""

from __future__ import annotations

import dataclasses
import gc
import sys
from collections.abc import Callable, Iterator
from typing import Any

from tinygrad_chat.text.corpora import Corpus, open_corpus
from tinygrad_chat.text.data import tokenize
from tinygrad_chat.text.formats.rows import Document
from tinygrad_chat.text.learning import training_documents
from tinygrad_chat.text.makers import MADE, WORDS
from tinygrad_chat.text.processes import as_line, asked_of_this_process
from tinygrad_chat.text.tokenizers import tokenizer_from_state
from tinygrad_chat.text.tokenizers.bpe_training import count_words

OFTEN = 1000  # conversations after which it is told how many there are

Tell = Callable[[dict[str, Any]], None]


def make(asked: Iterator[Any], tell: Tell) -> None:
    """Make a corpus, tell its words, and tokenize it, as it is `asked`."""
    first = next(asked)
    corpus = _held(open_corpus(first["corpus"]), tell)
    words = count_words(training_documents(corpus, first["split"]), first["pattern"])
    tell({WORDS: {word.decode(): times for word, times in words.items()}})
    for state in asked:
        tokenize(corpus, tokenizer_from_state(state), first["split"])
        return


def _held(corpus: Corpus, tell: Tell) -> Corpus:
    """Return the same corpus with its documents in memory; tell how many there are on the way."""
    documents = list[Document]()
    for document in corpus.documents():
        documents.append(document)
        if len(documents) % OFTEN == 0:
            tell({MADE: len(documents)})
    return dataclasses.replace(corpus, documents=lambda any_bytes=False: iter(documents))


def main() -> None:
    """Do so for whoever has started this process."""
    gc.disable()  # there are no cycles among what is held, only millions of objects to look through

    def tell(message: dict[str, Any]) -> None:
        sys.stdout.buffer.write(as_line(message))
        sys.stdout.buffer.flush()

    make(asked_of_this_process(), tell)


if __name__ == "__main__":
    main()
