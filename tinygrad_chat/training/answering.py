"""Batched questions to a model in training, and its answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tinygrad_chat.inference.engine import Engine
from tinygrad_chat.inference.options import GenerationOptions
from tinygrad_chat.models.protocol import LanguageModel
from tinygrad_chat.text.conversations import ChatTemplate, Conversation
from tinygrad_chat.text.tokenizers import Tokenizer
from tinygrad_chat.tools.calculator import calculate


@dataclass(frozen=True)
class Questions:
    """Questions, each with its own random stream for sampling the answer; `rows` are answered at a time."""

    asked: Sequence[Conversation]
    streams: Sequence[np.random.Generator]
    tokenizer: Tokenizer
    options: GenerationOptions
    rows: int

    def part(self, which: slice) -> Questions:
        """Return a slice of the questions."""
        return dataclasses.replace(self, asked=self.asked[which], streams=self.streams[which])


@dataclass(frozen=True)
class Answer:
    """A model's answer: the prompt's tokens, the answer's, and which of these were sampled rather than by a tool."""

    prompt: Sequence[int]
    tokens: Sequence[int]
    drawn: Sequence[bool]
    text: str


class Answering(Protocol):
    """What can answer: a training step, by its model or by those of all ranks."""

    def answers(self, questions: Questions) -> list[Answer]:
        """Return the answers, in the order of the questions."""
        ...


def answers_of(model: LanguageModel, questions: Questions) -> list[Answer]:
    """Let a model answer. What it samples for a question depends only on the question and its random stream."""
    if not questions.asked:
        return []
    rows = min(len(questions.asked), questions.rows)
    # No prefix cache: it would only be valid for one set of weights.
    engine = Engine(model, questions.tokenizer, rows=rows, tool=calculate, prefix_bytes=0)
    requests = [
        engine.submit_answer(question, questions.options, random=random)
        for question, random in zip(questions.asked, questions.streams, strict=True)
    ]
    engine.finish(requests)
    template, answers = ChatTemplate(questions.tokenizer), []
    for question, request in zip(questions.asked, requests, strict=True):
        prompt = template.render_prompt(question).tolist()
        drawn = [not step.forced for step in request.steps]
        answers.append(Answer(prompt, request.tokens, drawn, request.written))
    return answers
