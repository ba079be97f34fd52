"""Tokens split into a training set and a validation set."""

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
    """Which tokens of conversations are trained: the marks of the training and the validation tokens (see windows.py),
    where each validation conversation begins, and the chat `template`."""

    training_marks: np.ndarray
    validation_marks: np.ndarray
    validation_starts: np.ndarray
    template: ChatTemplate

    @functools.cached_property
    def trained_tokens(self) -> int:
        """How many of the training tokens are written by the assistant."""
        return int(np.count_nonzero(self.training_marks & TRAINED))


@dataclass(frozen=True)
class Dataset:
    """`training` and `validation` tokens, and what they were made from.

    `sha256` and `bytes` are those of all documents concatenated: for a single text file, the file's own. `left_out`
    lists what was found among the files but not read; `notes` tell the user about that, and how the rest was read.
    `split` says what is held out: whole documents, or the end of the text. Use `from_tokens` or `from_texts` for your
    own tokens or texts.
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
    """For conversations: which tokens are trained."""

    @classmethod
    def from_store(cls, store: TokenStore, *, context: int) -> Dataset:
        """Make a dataset of a token store, with its split.

        Raises DataError if either part is too short for one window of `context` tokens and its targets.
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
        """Make a dataset of conversations; training and validation need at least one each."""
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
        """Make a dataset of tokens (N,) of any integer type: the first 90 % are for training.

        `document_starts` are the indices where documents begin; without them, all is one document. `sha256` and `bytes`
        are the array's. Raises DataError as `from_store` does, and for arrays that are not tokens.

        >>> Dataset.from_tokens(np.arange(1000) % 7, context=16).validation[:5].tolist()
        [4, 5, 6, 0, 1]
        """
        if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
            raise DataError(
                f"{source}: expected a 1-D array of integers, received {tokens.dtype} of shape {tokens.shape}; "
                "flatten them, or convert them with astype"
            )
        if tokens.size and tokens.min() < 0:
            raise DataError(f"{source}: expected no token below 0, received {tokens.min()}")
        _expect_windows(len(tokens), context, source)
        split = end_from(len(tokens))
        digest = hashlib.sha256(np.ascontiguousarray(tokens).data).hexdigest()
        starts = np.zeros(1, np.int64) if document_starts is None else np.asarray(document_starts, np.int64)
        within = _within(np.union1d([0], starts), tokens[:split])  # tokens before the first start are one, too
        return cls(source, digest, tokens.nbytes, len(starts), tokens[:split], tokens[split:], document_starts=within)

    @classmethod
    def from_texts(cls, texts: Iterable[str], tokenizer: Tokenizer, *, context: int, source: str = "texts") -> Dataset:
        """Make a dataset of texts, each a document after a BOS; nothing is cached for later runs.

        Raises DataError as `from_store` does, and VocabularyError for text that `tokenizer` cannot encode.
        """
        return cls.from_store(tokenize(corpus_of_texts(texts, source), tokenizer), context=context)

    @property
    def parts(self) -> tuple[Dataset, ...]:
        """This dataset alone; a mixture has several parts."""
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
        """Return the training rows of conversations. Raises DataError as `ConversationRows` does."""
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
        """Return the validation rows of conversations, always in the same order."""
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
        """What is learned from it, in a few words."""
        if self.chats is None:
            return "the next token"
        share = self.chats.trained_tokens / max(1, self.training_tokens)
        return f"what the assistant says ({share:.0%} of {self.training_tokens:,} tokens)"

    def summary(self) -> dict[str, str | int]:
        """Return what a run records about its data, ready for JSON."""
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
    """Return the document starts that lie within `tokens`, which come first."""
    return starts[: np.searchsorted(starts, len(tokens))]


def _expect_windows(tokens: int, context: int, source: str) -> None:
    if tokens < _least(context):
        raise DataError(
            f"{source}: expected at least {_least(context)} tokens for --context {context} (one window in each of "
            f"training and validation), received {tokens}; use a longer text or a smaller --context"
        )


def _least(context: int) -> int:
    return (context + 1) * HELD_OUT
