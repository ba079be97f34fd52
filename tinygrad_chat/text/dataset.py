"""Tokens split into a part to train on and one to evaluate on."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from tinygrad_chat.errors import DataError
from tinygrad_chat.text.conversations.template import ChatTemplate
from tinygrad_chat.text.conversations.windows import TRAINED, ConversationRows
from tinygrad_chat.text.corpora import corpus_of_texts
from tinygrad_chat.text.data import tokenize
from tinygrad_chat.text.finding import LeftOut
from tinygrad_chat.text.split import END, HELD_OUT, end_from
from tinygrad_chat.text.token_store import TokenStore
from tinygrad_chat.text.tokenizers import Tokenizer


@dataclass(frozen=True)
class Chats:
    """Which tokens of conversations are trained: `marks` of the training tokens and of those held out, where each of
    the latter begins, and the `template` that they follow."""

    training_marks: np.ndarray
    validation_marks: np.ndarray
    validation_starts: np.ndarray
    template: ChatTemplate

    @functools.cached_property
    def trained_tokens(self) -> int:
        """How many of the training tokens the assistant writes."""
        return int(np.count_nonzero(self.training_marks & TRAINED))


@dataclass(frozen=True)
class Dataset:
    """`training` and `validation` tokens, and what they were made from.

    `sha256` and `bytes` are those of all documents one behind the other: for a single text file, the file's own.
    `left_out` is what lies among the files and was not read; `notes` tell people of that, and how the rest was read.
    `split` says what is held out: whole documents or the end of all. Whoever has tokens or texts of their own makes one
    by `from_tokens` or `from_texts`.
    """

    source: str
    sha256: str
    bytes: int
    documents: int
    training: np.ndarray
    validation: np.ndarray
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    split: str = END
    document_starts: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    """Where the documents begin in the training tokens."""
    chats: Chats | None = None
    """Of conversations: what of them is trained."""

    @classmethod
    def from_store(cls, store: TokenStore, *, context: int) -> Dataset:
        """Make a dataset of a tokenized corpus, split as the store is.

        Raises DataError where either part is too short for one window of `context` tokens and its targets.
        """
        if store.marks is not None:
            return cls._from_chats(store, store.marks)
        if store.contents.bytes == 0:
            least = _least(context)
            raise DataError(f"--data {store.source}: is empty; expected at least {least} characters of text")
        source = f"--data {store.source}"
        _expect_windows(len(store.tokens), context, source)
        training, validation = store.tokens[: store.held_out_from], store.tokens[store.held_out_from :]
        least = min(len(training), len(validation))
        if least <= context:
            raise DataError(
                f"{source}: expected at least {context + 1} tokens for --context {context} in the documents of each of "
                f"training and validation, received {least}; use more text, a smaller --context, or --split {END}"
            )
        contents = store.contents
        return cls(
            store.source,
            contents.sha256,
            contents.bytes,
            contents.documents,
            training,
            validation,
            store.left_out,
            store.notes,
            store.split,
            document_starts=_within(store.document_starts, training),
        )

    @classmethod
    def _from_chats(cls, store: TokenStore, marks: np.ndarray) -> Dataset:
        """Make one of conversations, of which each side needs at least one."""
        contents, first = store.contents, store.held_out_from
        held_out = store.document_starts >= first
        if held_out.all() or not held_out.any():
            other = f", or --split {END}" if len(held_out) > 1 else ""
            raise DataError(
                f"--data {store.source}: expected at least one conversation to train on and one to hold out, received "
                f"{int((~held_out).sum())} and {int(held_out.sum())}; give more conversations{other}"
            )
        return cls(
            store.source,
            contents.sha256,
            contents.bytes,
            contents.documents,
            store.tokens[:first],
            store.tokens[first:],
            store.left_out,
            store.notes,
            store.split,
            document_starts=store.document_starts[~held_out],
            chats=Chats(
                marks[:first], marks[first:], store.document_starts[held_out] - first, ChatTemplate(store.tokenizer)
            ),
        )

    @classmethod
    def from_tokens(
        cls, tokens: np.ndarray, *, context: int, document_starts: np.ndarray | None = None, source: str = "tokens"
    ) -> Dataset:
        """Make a dataset of any tokens (N,), of whatever integers: the first 90 % are for training.

        `document_starts` are the indices at which documents begin; without them, all is one. `sha256` and `bytes` are
        the array's. Raises DataError as `from_store` does, and for what are no tokens.

        >>> Dataset.from_tokens(np.arange(1000) % 7, context=16).validation[:5].tolist()
        [4, 5, 6, 0, 1]
        """
        if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
            raise DataError(
                f"{source}: expected one row of integers, received {tokens.dtype} of shape {tokens.shape}; "
                "flatten them, or convert them with astype"
            )
        if tokens.size and tokens.min() < 0:
            raise DataError(f"{source}: expected no token below 0, received {tokens.min()}")
        _expect_windows(len(tokens), context, source)
        split = end_from(len(tokens))
        digest = hashlib.sha256(np.ascontiguousarray(tokens).data).hexdigest()
        starts = np.zeros(1, np.int64) if document_starts is None else np.asarray(document_starts, np.int64)
        within = _within(np.union1d([0], starts), tokens[:split])  # what stands before the first is one, too
        return cls(source, digest, tokens.nbytes, len(starts), tokens[:split], tokens[split:], document_starts=within)

    @classmethod
    def from_texts(cls, texts: Iterable[str], tokenizer: Tokenizer, *, context: int, source: str = "texts") -> Dataset:
        """Make a dataset of texts, each a document after a BOS, of which nothing is kept for the next start.

        Raises DataError as `from_store` does, and VocabularyError for what `tokenizer` does not know.
        """
        return cls.from_store(tokenize(corpus_of_texts(texts, source), tokenizer), context=context)

    @property
    def parts(self) -> tuple[Dataset, ...]:
        """Itself alone, as a mixture has several."""
        return (self,)

    @property
    def training_tokens(self) -> int:
        """How many tokens there are to train on."""
        return len(self.training)

    @property
    def validation_tokens(self) -> int:
        """How many tokens are held out."""
        return len(self.validation)

    def training_rows(self, *, context: int, seed: int) -> ConversationRows:
        """Return the rows that conversations are trained on. Raises DataError as `ConversationRows` does."""
        assert self.chats is not None
        return ConversationRows(
            self.training,
            self.chats.training_marks,
            self.document_starts,
            template=self.chats.template,
            context=context,
            seed=seed,
        )

    def validation_rows(self, *, context: int) -> ConversationRows:
        """Return the rows that a model of conversations is evaluated on, in an order that is always the same."""
        assert self.chats is not None
        return ConversationRows(
            self.validation,
            self.chats.validation_marks,
            self.chats.validation_starts,
            template=self.chats.template,
            context=context,
            seed=0,
        )

    @property
    def objective(self) -> str:
        """What is learned of it, in a few words."""
        if self.chats is None:
            return "the next token"
        share = self.chats.trained_tokens / max(1, self.training_tokens)
        return f"what the assistant says ({share:.0%} of {self.training_tokens:,} tokens)"

    def summary(self) -> dict[str, str | int]:
        """Return what a run records of its data, ready for JSON."""
        trained = {} if self.chats is None else {"trained_tokens": self.chats.trained_tokens}
        return {
            "source": self.source,
            "sha256": self.sha256,
            "bytes": self.bytes,
            "documents": self.documents,
            "split": self.split,
            "training_tokens": self.training_tokens,
            "validation_tokens": self.validation_tokens,
            **trained,
        }


def _within(starts: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Return those of the documents' starts that are in the first `tokens`."""
    return starts[: np.searchsorted(starts, len(tokens))]


def _expect_windows(tokens: int, context: int, source: str) -> None:
    if tokens < _least(context):
        raise DataError(
            f"{source}: expected at least {_least(context)} tokens for --context {context} (one window in each of "
            f"training and validation), received {tokens}; use a longer text or a smaller --context"
        )


def _least(context: int) -> int:
    return (context + 1) * HELD_OUT
