"""Greedy answers to many questions at a time, and the first questions of held-out conversations."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from tinygrad_chat.errors import UsageError
from tinygrad_chat.inference.engine import Engine
from tinygrad_chat.inference.options import GenerationOptions
from tinygrad_chat.text.conversations import ChatTemplate, Conversation
from tinygrad_chat.text.tokenizers import Tokenizer

LONGEST_ANSWER = 200  # tokens
LOOKED_THROUGH = 1 << 16  # tokens of a text that are searched for questions
LONGEST_QUESTION = 1 << 12  # tokens, with the system message
TRIES = 20  # candidate places for each question


def written_answers(
    engine: Engine, questions: Iterable[Conversation], watch: Callable[[int], Any] = lambda done: None
) -> list[str]:
    """Return the greedy answer to each question, '' if the context has no room for one.

    Answers are text, without tool calls and their results. `watch` is told how many are done.
    """
    options = GenerationOptions(max_new_tokens=LONGEST_ANSWER, temperature=0)
    requests = [
        engine.submit_answer(question, options) if _has_room(engine, question) else None for question in questions
    ]
    refused = requests.count(None)
    engine.finish(filter(None, requests), lambda done: watch(refused + done))
    return [request.written if request else "" for request in requests]


def _has_room(engine: Engine, question: Conversation) -> bool:
    """Return whether the context has room for a question and one token of its answer."""
    return len(engine.template.render_prompt(question)) < engine.model.context


def first_questions(
    texts: Sequence[tuple[np.ndarray, np.ndarray | None]], tokenizer: Tokenizer, most: int
) -> list[Conversation]:
    """Return the first questions of the first conversations in some texts, equally many from each text.

    A text is its tokens (T,) and the positions at which conversations begin, or None if these must be found from the
    tokens. A text without conversations has no questions.
    """
    try:
        template = ChatTemplate(tokenizer)
    except UsageError:
        return []
    found: list[Conversation] = []
    for tokens, starts in texts:
        looked_through = np.asarray(tokens[:LOOKED_THROUGH])
        known = np.flatnonzero(looked_through == template.beginning) if starts is None else starts
        tried = known[: TRIES * most]
        questions = (template.first_question(looked_through[start : start + LONGEST_QUESTION]) for start in tried)
        found += itertools.islice(filter(None, questions), max(1, most // len(texts)))
    return found[:most]


def answers_as_text(engine: Engine, questions: Sequence[Conversation]) -> str:
    """Return questions and the model's answers as readable text."""
    answers = zip(questions, written_answers(engine, questions), strict=True)
    return "\n\n".join(f"> {question.messages[-1].text}\n{answer}" for question, answer in answers)
