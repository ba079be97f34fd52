"""Evaluate trained models on a text, in bits per byte: models with different tokenizers can read the same bytes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.errors import DataError
from tinygrad_chat.models.protocol import Predictor
from tinygrad_chat.ops.cross_entropy import IGNORED
from tinygrad_chat.option import expect
from tinygrad_chat.text.batches import Batch, batches_in_order
from tinygrad_chat.text.conversations.template import ChatTemplate
from tinygrad_chat.text.conversations.windows import ConversationRows
from tinygrad_chat.text.corpora import Source
from tinygrad_chat.text.data import open_sources
from tinygrad_chat.text.download import Progress
from tinygrad_chat.text.token_store import MixedStore, TokenStore
from tinygrad_chat.text.tokenizers import Tokenizer
from tinygrad_chat.training.evaluation import Evaluation, evaluate_batches

CHUNK = 1 << 20  # tokens whose bytes are summed at a time


@dataclass(frozen=True)
class TextEvaluation:
    """The evaluation of a model on the text of one `source`, and the `seconds` it took.

    `notes` are lines for the user: what was left out of the text, and how the rest was read.
    """

    source: str
    evaluation: Evaluation
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def bytes_per_token(self) -> float:
        """The average length of a token in bytes."""
        return self.evaluation.bytes / self.evaluation.tokens

    def to_json(self) -> dict[str, Any]:
        """Return the evaluation as a dict for JSON."""
        found = {name: value for name, value in dataclasses.asdict(self.evaluation).items() if name != "sources"}
        speed = self.evaluation.tokens / self.seconds
        rest = {"bytes_per_token": self.bytes_per_token, "seconds": self.seconds, "tokens_per_second": speed}
        return {"source": self.source, **found, **rest}


def evaluate_on_text(
    model: Predictor,
    tokenizer: Tokenizer,
    config: TrainingConfig,
    *,
    data: Source | None = None,
    most_bytes: int | None = None,
    progress: Progress | None = None,
    ranks: int = 1,
    **reading: Any,
) -> Iterator[TextEvaluation]:
    """Yield a model's evaluation on each source of `data`, by default on the validation split of its run.

    `config` is that of its run: it says how the run's text is read and split, and how many rows the model takes at
    a time. `most_bytes` bounds the text of each source, so that models with different tokenizers read the same bytes.
    If several `ranks` share each batch, it has rows for all of them. Other `data` is read as by `open_data`, with the
    options in `reading`, and counts as a whole. `progress` is told how many tokens are done. Raises DataError for data
    that cannot be read or has fewer than two tokens, VocabularyError for text that the tokenizer does not know.
    """
    expect("--max-bytes", most_bytes or 1, minimum=1)
    options = config.data
    if data is None:
        reading = {**options.reading, "split": options.split}
    opened = open_sources(options.source if data is None else data, tokenizer, progress=progress, **reading)
    sizes = tokenizer.bytes_per_token()
    rows = config.micro_batch * ranks
    for store in opened.stores if isinstance(opened, MixedStore) else (opened,):
        if store.marks is not None:
            yield _evaluate_chats(model, store, sizes, rows, most_bytes, held_out=data is None, progress=progress)
            continue
        tokens = first_bytes(_evaluated(store, held_out=data is None), sizes, most_bytes)
        if len(tokens) < 2:
            raise DataError(
                f"--data {store.source}: expected at least 2 tokens to evaluate on, received {len(tokens)}; "
                "use a longer text, or more --max-bytes"
            )
        batches = batches_in_order(tokens, batch_size=rows, context=model.context)
        start = time.perf_counter()
        found = evaluate_batches(model, _told(batches, len(tokens) - 1, progress), sizes)
        yield TextEvaluation(store.source, found, time.perf_counter() - start, store.notes)


def _evaluate_chats(
    model: Predictor,
    store: TokenStore,
    sizes: np.ndarray,
    batch_size: int,
    most_bytes: int | None,
    *,
    held_out: bool,
    progress: Progress | None,
) -> TextEvaluation:
    """Return a model's evaluation on what the assistant says, in rows with about `most_bytes` of it."""
    assert store.marks is not None
    first = store.held_out_from if held_out else 0
    starts = store.document_starts[store.document_starts >= first] - first
    template = ChatTemplate(store.tokenizer)
    rows = ConversationRows(
        store.tokens[first:], store.marks[first:], starts, template=template, context=model.context, seed=0
    )

    def batches() -> Iterator[Batch]:
        size = 0
        for inputs, targets in rows.in_order(batch_size):
            read = size + np.cumsum(np.where(targets == IGNORED, 0, sizes[targets]).sum(axis=1))
            needed = len(read) + 1 if most_bytes is None else int(np.searchsorted(read, most_bytes)) + 1
            yield inputs[:needed], targets[:needed]
            if needed <= len(read):
                return
            size = int(read[-1])

    start = time.perf_counter()
    found = evaluate_batches(model, _told(batches(), rows.rows * rows.context, progress), sizes)
    notes = (*store.notes, *([f"{store.source}: {rows.note}"] if rows.note else []))
    return TextEvaluation(store.source, found, time.perf_counter() - start, notes)


def first_bytes(tokens: np.ndarray, sizes: np.ndarray, most_bytes: int | None) -> np.ndarray:
    """Return the first `tokens`, as many as fit in `most_bytes` bytes; all of them if that is None.

    >>> first_bytes(np.array([0, 2, 1, 2]), np.array([0, 1, 3]), 5).tolist()
    [0, 2, 1]
    """
    if most_bytes is None:
        return tokens
    read = 0
    for start in range(0, len(tokens), CHUNK):
        ends = read + np.cumsum(sizes[tokens[start : start + CHUNK]])
        if ends[-1] > most_bytes:
            return tokens[: start + int(np.searchsorted(ends, most_bytes, side="right"))]
        read = int(ends[-1])
    return tokens


def _evaluated(store: TokenStore, *, held_out: bool) -> np.ndarray:
    return store.tokens[store.held_out_from :] if held_out else store.tokens


def _told(batches: Iterator[Batch], total: int, progress: Callable[[str, int, int], Any] | None) -> Iterator[Batch]:
    """Yield the batches, and report progress after each."""
    done = 0
    for batch in batches:
        yield batch
        done += batch[1].size
        if progress is not None:
            progress("evaluating", done, total)
