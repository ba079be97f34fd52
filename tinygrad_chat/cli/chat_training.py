"""The first run: train a model to chat with, and show it learning."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from tinygrad_chat.cli.display import INDENT, open_display
from tinygrad_chat.cli.train import follow
from tinygrad_chat.config.files import read_settings
from tinygrad_chat.errors import TinygradChatError
from tinygrad_chat.formatting import decimal_number, duration
from tinygrad_chat.inference.engine import Engine
from tinygrad_chat.inference.options import GenerationOptions
from tinygrad_chat.runs.folder import RunFolder, new_run_path
from tinygrad_chat.text.conversations import Conversation
from tinygrad_chat.training.events import Ended, Evaluated, Event, Logged, Stepped
from tinygrad_chat.training.facts import resolve_with_facts
from tinygrad_chat.training.run import Run, resume_run, start_run

QUESTIONS = ("What does str.split do?", "What is 347 * 28?", "Who are you?")
EVERY = 30.0  # seconds between two rounds of questions
LONGEST_ANSWER = 40  # tokens
LONGEST_LINE = 60  # characters of an answer that are shown


class Rehearsal:
    """Asks a model in training the same questions at intervals and shows its answers, without changing the run."""

    def __init__(self, run: Run, line: Callable[..., None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._run, self._line, self._clock = run, line, clock
        self._next = -float("inf")

    def watch(self, event: Event) -> None:
        """Ask between two steps, when it is time."""
        if isinstance(event, Stepped) and self._clock() >= self._next:
            self.ask(f"step {event.step:,}, loss {decimal_number(event.loss, 2)}")
            self._next = self._clock() + EVERY

    def ask(self, when: str) -> None:
        """Ask now. Errors, as from weights that are not finite, are left for the training to report."""
        with contextlib.suppress(TinygradChatError):
            answers = self._answers()
            self._line(f"{duration(self._run.progress.seconds)} of training, {when}", style="dim")
            width = max(map(len, QUESTIONS))
            for question, answer in zip(QUESTIONS, answers, strict=True):
                self._line(f"{INDENT}{question:{width}}  {answer[:LONGEST_LINE]}", style="cyan")

    def _answers(self) -> list[str]:
        """Return the answer to each question, generated as one batch."""
        run, options = self._run, GenerationOptions(temperature=0, max_new_tokens=LONGEST_ANSWER)
        engine = Engine(run.model, run.tokenizer, rows=len(QUESTIONS), tool=run.calculator)  # new, as the weights are
        requests = [engine.submit_answer(Conversation.of(question), options) for question in QUESTIONS]
        engine.finish(requests)
        return [request.written for request in requests]


def train_to_chat(preset: str, unfinished: RunFolder | None, settings: Mapping[str, Any]) -> RunFolder:
    """Train a preset's model in a new folder, or continue an `unfinished` run; return its folder.

    `settings` are the user's. If training is stopped from outside, says how to continue and ends the command.
    """
    with open_display(sys.stderr) as display:
        if unfinished is None:
            base = read_settings(preset)
            resolved, data = resolve_with_facts(settings, base, progress=display.progressed, say=display.line)
            run = start_run(resolved, new_run_path(preset), data=data, progress=display.progressed)
        else:
            run = resume_run(unfinished.path, settings, progress=display.progressed, say=display.line)
            if run.finished:
                return run.folder
        rehearsal = Rehearsal(run, display.line)

        def show(event: Event) -> None:
            if isinstance(event, Ended):
                rehearsal.ask(f"{event.step:,} steps")
            elif not isinstance(event, Logged | Evaluated):
                display.show(event)
            rehearsal.watch(event)

        ended = follow(run, display, show)
        if ended.interrupted:
            display.line("everything is saved; tgc chat continues the training or talks to the model as it is")
    ended.settle(run, display)
    return run.folder
