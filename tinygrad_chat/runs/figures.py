"""Facts about itself that a model can state correctly: its figures, by the names that its calculator knows."""

from __future__ import annotations

import functools
from collections.abc import Callable

from tinygrad_chat.config.groups import OWN
from tinygrad_chat.models.size import count_parameters
from tinygrad_chat.runs.state import SavedModel
from tinygrad_chat.tools import calculate


def facts_of(saved: SavedModel) -> dict[str, int | float]:
    """Return a model's figures: its size, how long it was trained, and its loss if known."""
    shape, progress, vocabulary = saved.config.model, saved.progress, saved.tokenizer.size
    facts: dict[str, int | float] = {
        "context": shape.context,
        "vocabulary": vocabulary,
        "steps": saved.step,
        "tokens": saved.step * saved.config.data.batch_size * shape.context,
        "minutes": round(progress.seconds / 60, 1),
    }
    if saved.config.recipe.model != OWN:
        facts |= {"layers": shape.layers, "heads": shape.heads, "width": shape.width}
        facts["parameters"] = count_parameters(shape, vocabulary)
    loss = progress.best_loss if progress.best_loss is not None else progress.recent_losses.mean
    return facts | ({"loss": round(loss, 2)} if loss else {})


def calculator_of(saved: SavedModel) -> Callable[[str], str]:
    """Return the calculator tool of a model in a chat, which knows the model's own figures."""
    return functools.partial(calculate, facts=facts_of(saved))
