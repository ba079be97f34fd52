"""The loop of a chat at a terminal: messages, commands, Ctrl-C and the end of input."""

from __future__ import annotations

from tinygrad_chat.cli.chat_commands import run_command
from tinygrad_chat.cli.chat_input import read_message
from tinygrad_chat.cli.chat_session import Session
from tinygrad_chat.errors import TinygradChatError


def converse(session: Session) -> None:
    """Chat until the user ends it. An error prints a line and does not end the chat."""
    pressed = False
    while not session.ended:
        try:
            text = read_message(session.read_line)
        except EOFError:
            session.page.remark("")
            return
        except KeyboardInterrupt:
            session.page.remark("")
            if not session.read_line.typed:
                if pressed:
                    return
                pressed = True
                session.page.remark("Ctrl-C again ends the chat; so does Ctrl-D")
            continue
        pressed = False
        try:
            take(session, text)
        except (TinygradChatError, OSError) as error:
            session.page.remark(_message(error), "red")
        except (KeyboardInterrupt, EOFError):  # while a command asks something
            session.page.remark("")


def take(session: Session, text: str) -> None:
    """Answer a message or run a command."""
    if not text.strip():
        return
    if text.startswith("/") and not text.startswith("//"):
        run_command(session, text)
    else:
        session.answer(session.chat.reply(text[1:] if text.startswith("//") else text))


def _message(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'}: {error.strerror or error}"
    return str(error)
