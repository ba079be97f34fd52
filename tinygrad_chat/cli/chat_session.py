"""A chat on a terminal: messages and commands come, answers are shown, and Ctrl-C stops one of them at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tinygrad_chat.cli.chat_commands import run_command
from tinygrad_chat.cli.chat_display import Page
from tinygrad_chat.cli.chat_input import TerminalInput, read_message
from tinygrad_chat.cli.interruption import note_ctrl_c
from tinygrad_chat.errors import TinygradChatError, UsageError
from tinygrad_chat.text.conversations import Conversation

if TYPE_CHECKING:
    from tinygrad_chat.inference.chat import Chat
    from tinygrad_chat.inference.request import TokenStep


class Session:
    """A conversation with a model, and the page on which it is shown."""

    def __init__(self, chat: Chat, page: Page, read_line: TerminalInput) -> None:
        self.chat, self.page, self.read_line = chat, page, read_line
        self.steps: list[TokenStep] = []
        """The tokens of the last answer."""
        self.ended = False

    def run(self) -> None:
        """Go on until the person has had enough."""
        pressed = False
        while not self.ended:
            try:
                text = read_message(self.read_line)
            except EOFError:
                self.page.remark("")
                return
            except KeyboardInterrupt:
                self.page.remark("")
                if not self.read_line.typed:
                    if pressed:
                        return
                    pressed = True
                    self.page.remark("Ctrl-C once more ends the chat; so does Ctrl-D")
                continue
            pressed = False
            try:
                self.take(text)
            except (TinygradChatError, OSError) as error:
                self.page.remark(_message(error), "red")
            except (KeyboardInterrupt, EOFError):  # where a command asks something
                self.page.remark("")

    def take(self, text: str) -> None:
        """Do what a message or a command asks."""
        if not text.strip():
            return
        if text.startswith("//"):
            text = text[1:]
        elif text.startswith("/"):
            run_command(self, text)
            return
        self.answer(self.chat.reply(text))

    def answer(self, steps: Iterator[TokenStep]) -> None:
        """Show an answer as it comes. Ctrl-C stops it; what came of it until then stays in the conversation."""
        self.steps = []
        self.page.begin()
        with note_ctrl_c() as stopped:
            for step in steps:
                self.steps.append(step)
                self.page.step(step)
                if stopped and self.chat.request:
                    self.chat.request.cancel()
        self.page.end()
        if stopped:
            self.page.remark("stopped")

    def take_up(self, conversation: Conversation) -> None:
        """Go on with another conversation."""
        self.chat.conversation = conversation
        self.steps = []

    def expect_conversation(self) -> Conversation:
        """Return what was said so far. Raises UsageError where that is nothing."""
        if self.chat.conversation is None:
            raise UsageError("nothing has been said yet")
        return self.chat.conversation

    def confirm(self, question: str, *, default: bool) -> bool:
        """Ask, and return whether the answer is yes."""
        return is_yes(self.read_line(question), default=default)

    def name_of(self, token: int) -> str:
        """Return the text of a token, or the name of a special one."""
        tokenizer = self.chat.engine.template.tokenizer
        names = {number: name for name, number in tokenizer.special_tokens.items()}
        return names.get(token) or tokenizer.decode([token])


def is_yes(answer: str, *, default: bool) -> bool:
    """Return what an answer to a question means that can be answered with yes or no.

    >>> is_yes("", default=True), is_yes("Yes", default=False), is_yes("nope", default=True)
    (True, True, False)
    """
    return default if not answer.strip() else answer.strip().lower() in ("y", "yes")


def _message(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'}: {error.strerror or error}"
    return str(error)
