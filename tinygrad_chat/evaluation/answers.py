"""Evaluate a model on a task's problems: answers are decoded greedily, in batches, or chosen by likelihood."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tinygrad_chat.backend import to_host
from tinygrad_chat.errors import UsageError
from tinygrad_chat.inference.answers import written_answers
from tinygrad_chat.inference.engine import Engine
from tinygrad_chat.models.protocol import Predictor
from tinygrad_chat.ops.cross_entropy import IGNORED
from tinygrad_chat.option import expect
from tinygrad_chat.runs.scores import Example, TaskResult
from tinygrad_chat.tasks import Task
from tinygrad_chat.tasks.registry import problems_of, running
from tinygrad_chat.text.conversations import TEXT, ChatTemplate, Conversation, Message, Part
from tinygrad_chat.text.conversations.conversation import ASSISTANT
from tinygrad_chat.text.download import Progress

EXAMPLES = 3
ROWS = 32  # requests that are decoded together

Watch = Callable[[int], Any]


class Asked(NamedTuple):
    """The part of a problem that the model sees."""

    question: Conversation
    choices: tuple[str, ...]


Answering = Callable[[Engine, Sequence[Asked], Watch], list[str]]
"""A function like `answers_of`; its `Watch` is told how many answers are done."""


def answers_of(engine: Engine, asked: Sequence[Asked], watch: Watch) -> list[str]:
    """Return the model's answer to each problem, in order."""
    answers: dict[int, str] = {}
    for index, each in enumerate(asked):
        if each.choices:
            answers[index] = likeliest(engine.model, engine.template, each)
            watch(len(answers))
    others = [index for index in range(len(asked)) if index not in answers]
    chosen = len(answers)
    questions = (asked[index].question for index in others)
    written = written_answers(engine, questions, lambda done: watch(chosen + done))
    answers.update(zip(others, written, strict=True))
    return [answers[index] for index in range(len(asked))]


def evaluate_task(
    engine: Engine,
    task: Task,
    *,
    count: int = 100,
    seed: int = 1,
    examples: int = EXAMPLES,
    run_programs: bool = False,
    progress: Progress | None = None,
    answering: Answering = answers_of,
) -> TaskResult:
    """Evaluate a model on `count` problems of a task, or on all of them if the task has fewer.

    The model decodes greedily, with tools if the engine has any; if a problem has choices, the likeliest one is its
    answer. A question that does not fit the context counts as unsolved. `examples` of the answers are kept, unsolved
    ones first. `answering` computes the answers: in this process, or on several ranks that share the problems. Raises
    UsageError for a task whose own code fails or that has no problems and, unless `run_programs`, for one that runs
    the model's programs; ConfigError for a number out of range.
    """
    expect("--problems", count, minimum=1)
    expect("--seed", seed, minimum=0)
    if getattr(task, "runs_programs", False) and not run_programs:
        raise UsageError(f"--task {task.name}: runs programs that the model writes; add --run-programs to allow it")
    start = time.perf_counter()
    problems = problems_of(task, count, seed)

    def watch(done: int) -> None:
        if progress is not None:
            progress(f"answering {task.name}", done, len(problems))

    answers = answering(engine, [Asked(problem.question, problem.choices) for problem in problems], watch)
    done: list[Example] = []
    for problem, answer in zip(problems, answers, strict=True):
        watch(len(problems))  # a check may take seconds, and `watch` may interrupt
        with running(task.name):
            solved = bool(problem.is_solved_by(answer))
        done.append(Example(as_text(problem.question), answer, problem.answer, solved))
    shown = sorted(done, key=lambda example: example.solved)[:examples]
    solved = sum(example.solved for example in done)
    return TaskResult(task.name, solved, len(done), task.chance, seed, time.perf_counter() - start, tuple(shown))


def likeliest(model: Predictor, template: ChatTemplate, asked: Asked) -> str:
    """Return the choice whose tokens have the highest mean log-probability; '' if one does not fit the context."""
    messages, start = asked.question.messages, len(template.render_prompt(asked.question))
    chosen = [Message(ASSISTANT, (Part(TEXT, choice),)) for choice in asked.choices]
    rows = [template.render(Conversation((*messages, message))).tokens[:-1] for message in chosen]  # without its end
    longest = max(map(len, rows))
    if longest - 1 > model.context:
        return ""
    tokens, targets = np.zeros((len(rows), longest), np.int64), np.full((len(rows), longest), IGNORED)
    for index, row in enumerate(rows):
        tokens[index, : len(row)] = row
        targets[index, start : len(row)] = row[start:]
    losses = to_host(model.token_losses(tokens[:, :-1], targets[:, 1:]))
    means = losses.sum(axis=1, dtype=np.float64) / [len(row) - start for row in rows]
    return asked.choices[int(np.argmin(means))]


def as_text(conversation: Conversation) -> str:
    """Return a conversation as text, one line per message; a single message without its role."""
    messages = conversation.messages
    if len(messages) == 1:
        return messages[0].text
    return "\n".join(f"{message.role}: {message.text}" for message in messages)
