"""The turns of a conversation so far, whether a local or a remote model answers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Protocol

from tinygrad_chat.errors import TinygradChatError, UsageError
from tinygrad_chat.inference.options import GenerationOptions
from tinygrad_chat.inference.request import Steps, TokenStep
from tinygrad_chat.text.conversations import CALL, TEXT, Conversation, Message, Part
from tinygrad_chat.text.conversations.conversation import ASSISTANT, SYSTEM

Turn = tuple[Message, Message]


class Asked(Protocol):
    """A question whose answer is being generated."""

    finish_reason: str | None
    """Why the answer ended; None while it is being generated."""

    def cancel(self) -> None:
        """End the answer."""
        ...


class Turns:
    """A conversation of questions and answers. `options` and `system` may be changed between two questions."""

    def __init__(self, system: str | None, options: GenerationOptions | None) -> None:
        self.system, self.options = system, options or GenerationOptions()
        self.request: Asked | None = None
        """The last question; its `finish_reason` says why the answer ended."""
        self._asked, self._is_answered = "", False
        self.clear()

    def clear(self) -> None:
        """Start over; the system message stays."""
        self._turns: list[Turn] = []

    @property
    def conversation(self) -> Conversation | None:
        """The conversation so far, None before the first answer. Set it to continue from another one."""
        return self._shown(self._turns) if self._turns else None

    @conversation.setter
    def conversation(self, conversation: Conversation | None) -> None:
        if conversation is None:
            self.clear()
            return
        messages = list(conversation.messages)
        self.system = messages.pop(0).text if messages[0].role == SYSTEM else None
        self.clear()
        self._turns = list(zip(messages[::2], messages[1::2], strict=False))  # without an unanswered last question
        self._is_answered = len(messages) % 2 == 0
        self._asked = messages[-2 if self._is_answered else -1].text

    def reply(self, text: str) -> Steps:
        """Ask a question; yield the steps of the answer, which then becomes part of the conversation."""
        raise NotImplementedError

    def retry(self) -> Steps:
        """Ask the last question again, forgetting its answer. Raises UsageError if nothing was asked."""
        return self.edit(self._asked)

    def edit(self, text: str) -> Steps:
        """Ask something else in place of the last question. Raises UsageError if nothing was asked."""
        if not self._asked:
            raise UsageError("chat: expected a question before this, received none")
        turns = self._turns
        if turns and self._is_answered:
            self._turns = turns[:-1]
        try:
            return self.reply(text)
        except TinygradChatError:  # such as a text that is too long: then nothing has changed
            self._turns = turns
            raise

    def _shown(self, turns: Sequence[Turn], *asked: Message) -> Conversation:
        """Return these turns as a conversation, followed by the new question, if any."""
        system = (Message(SYSTEM, (Part(TEXT, self.system),)),) if self.system else ()
        return Conversation((*system, *itertools.chain.from_iterable(turns), *asked))

    def _answer(self, asked: Message, request: Asked, steps: Iterator[TokenStep]) -> Steps:
        """Yield the steps of an answer, and store it as a turn, even if it is incomplete."""
        self.request = request
        known: list[TokenStep] = []
        try:
            for step in steps:
                known.append(step)
                yield step
        finally:
            request.cancel()
            parts = _parts(known)
            if any(part.text for part in parts):
                self._turns.append((asked, Message(ASSISTANT, parts)))
                self._is_answered = True


def _parts(steps: Sequence[TokenStep]) -> tuple[Part, ...]:
    """Return the parts of an answer, without an incomplete tool call or a call whose result is incomplete."""
    groups = [(kind, list(group)) for kind, group in itertools.groupby(steps, key=lambda step: step.kind)]
    parts = [Part(kind, "".join(step.text for step in group)) for kind, group in groups]
    if parts and parts[-1].kind != TEXT:
        parts.pop()
        if parts and parts[-1].kind == CALL:
            parts.pop()
    return tuple(part for part in parts if part.text or part.kind != TEXT)
