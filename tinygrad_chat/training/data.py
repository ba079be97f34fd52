"""A run's data, opened once."""

from __future__ import annotations

from dataclasses import dataclass

from tinygrad_chat.text.corpora import Corpus, open_corpus
from tinygrad_chat.text.dataset import Dataset, build_tokenizer, load_dataset
from tinygrad_chat.text.download import Progress
from tinygrad_chat.text.tokenizers import Tokenizer


@dataclass(frozen=True)
class Data:
    """A corpus and its tokenizer."""

    corpus: Corpus
    tokenizer: Tokenizer

    def dataset(self, context: int) -> Dataset:
        """Tokenize."""
        return load_dataset(self.corpus, self.tokenizer, context=context)


def open_data(
    source: str, *, tokenizer: str | Tokenizer, text_field: str = "text", progress: Progress | None = None
) -> Data:
    """Open."""
    corpus = open_corpus(source, text_field=text_field, progress=progress)
    return Data(corpus, build_tokenizer(tokenizer, corpus) if isinstance(tokenizer, str) else tokenizer)
