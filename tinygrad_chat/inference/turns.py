"""What was said in a conversation so far, turn by turn, whoever answers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Protocol

from tinygrad_chat.errors import UsageError
from tinygrad_chat.inference.options import GenerationOptions
from tinygrad_chat.inference.request import Steps, TokenStep
from tinygrad_chat.text.conversations import CALL, TEXT, Conversation, Message, Part
from tinygrad_chat.text.conversations.conversation import ASSISTANT, SYSTEM

Turn = tuple[Message, Message]


class Asked(Protocol):
    """A question that is being answered."""

    finish_reason: str | None
    """Why the answer ended; None while it goes on."""

    def cancel(self) -> None:
        """End it."""
        ...


class Turns:
    """A conversation of questions with their answers. `options` and `system` may be changed between two of them."""

    def __init__(self, system: str | None, options: GenerationOptions | None) -> None:
        self.system, self.options = system, options or GenerationOptions()
        self.request: Asked | None = None
        """What was asked last: its `finish_reason` says why the answer ended."""
        self._asked = ""
        self.clear()

    def clear(self) -> None:
        """Begin anew; the system message stays."""
        self._turns: list[Turn] = []

    @property
    def conversation(self) -> Conversation | None:
        """All that was said, None before the first answer. To set it is to go on from there."""
        return self._shown(self._turns) if self._turns else None

    @conversation.setter
    def conversation(self, conversation: Conversation | None) -> None:
        if conversation is None:
            self.clear()
            return
        messages = list(conversation.messages)
        self.system = messages.pop(0).text if messages[0].role == SYSTEM else None
        self.clear()
        self._turns = list(zip(messages[::2], messages[1::2], strict=False))  # what was not answered is not said
        self._asked = messages[-1].text if len(messages) % 2 else messages[-2].text

    def reply(self, text: str) -> Steps:
        """Say something; yield the steps of the answer, which is then part of the conversation."""
        raise NotImplementedError

    def retry(self) -> Steps:
        """Ask the last question again: what was answered is forgotten. Raises UsageError where nothing was asked."""
        return self.edit(self._asked)

    def edit(self, text: str) -> Steps:
        """Ask something else instead of the last question. Raises UsageError where nothing was asked."""
        if not self._asked:
            raise UsageError("chat: expected a question before this, received none")
        if self._turns and self._turns[-1][0].text == self._asked:
            self._turns.pop()
        return self.reply(text)

    def _shown(self, turns: Sequence[Turn], *asked: Message) -> Conversation:
        """Return these turns as a conversation, with what is asked after them."""
        system = (Message(SYSTEM, (Part(TEXT, self.system),)),) if self.system else ()
        return Conversation((*system, *itertools.chain.from_iterable(turns), *asked))

    def _answer(self, asked: Message, request: Asked, steps: Iterator[TokenStep]) -> Steps:
        """Yield the steps of an answer, and keep what there is of it."""
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


def _parts(steps: Sequence[TokenStep]) -> tuple[Part, ...]:
    """Return what was said; a call that was not over, and one without its whole result, was not."""
    groups = [(kind, list(group)) for kind, group in itertools.groupby(steps, key=lambda step: step.kind)]
    parts = [Part(kind, "".join(step.text for step in group)) for kind, group in groups]
    if parts and parts[-1].kind != TEXT:
        parts.pop()
        if parts and parts[-1].kind == CALL:
            parts.pop()
    return tuple(part for part in parts if part.text or part.kind != TEXT)
