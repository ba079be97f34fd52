"""A chat on a terminal: what was said, where it is shown, and answers that Ctrl-C stops."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tinygrad_chat.cli.chat_display import Page
from tinygrad_chat.cli.chat_input import TerminalInput
from tinygrad_chat.cli.interruption import note_ctrl_c
from tinygrad_chat.errors import UsageError
from tinygrad_chat.text.conversations import Conversation

if TYPE_CHECKING:
    from tinygrad_chat.inference.chat import Chat
    from tinygrad_chat.inference.remote import RemoteChat
    from tinygrad_chat.inference.request import TokenStep


class Session:
    """A conversation with a model, and the page on which it is shown."""

    def __init__(self, chat: Chat | RemoteChat, page: Page, read_line: TerminalInput) -> None:
        self.chat, self.page, self.read_line = chat, page, read_line
        self.steps: list[TokenStep] = []
        """The tokens of the last answer."""
        self.ended = False

    def answer(self, steps: Iterator[TokenStep]) -> None:
        """Show an answer as it is generated. Ctrl-C stops it; the part so far stays in the conversation."""
        self.steps = []
        self.page.begin()
        try:
            with note_ctrl_c() as stopped:
                for step in steps:
                    self.steps.append(step)
                    self.page.step(step)
                    if stopped and self.chat.request:
                        self.chat.request.cancel()
        finally:
            self.page.end()
        if stopped:
            self.page.remark("stopped")

    def take_up(self, conversation: Conversation) -> None:
        """Continue another conversation."""
        self.chat.conversation = conversation
        self.steps = []

    def expect_conversation(self) -> Conversation:
        """Return the conversation so far. Raises UsageError if there is none."""
        if self.chat.conversation is None:
            raise UsageError("nothing has been said yet")
        return self.chat.conversation

    def confirm(self, question: str, *, default: bool) -> bool:
        """Ask, and return whether the answer is yes."""
        return is_yes(self.read_line(question), default=default)


def is_yes(answer: str, *, default: bool) -> bool:
    """Return whether the answer to a yes-or-no question is yes; an empty one means `default`.

    >>> is_yes("", default=True), is_yes("Yes", default=False), is_yes("nope", default=True)
    (True, True, False)
    """
    return default if not answer.strip() else answer.strip().lower() in ("y", "yes")
