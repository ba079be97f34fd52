"""The commands within a chat: `/new`, `/save FILE` and so on, each a function of the session."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tinygrad_chat.cli.chat_display import show_why
from tinygrad_chat.cli.chat_session import Session
from tinygrad_chat.errors import UsageError
from tinygrad_chat.files import is_there, read_plain, user_path, write_atomic
from tinygrad_chat.formatting import count, quoted

if TYPE_CHECKING:
    from tinygrad_chat.text.conversations import Conversation

ABOUT = 19  # columns before each description in `/help`
LARGEST_CHAT = 16 << 20  # bytes of a file that `/load` reads


class Command(NamedTuple):
    """A command: what argument it takes, what it is for, and the function that is called with the argument."""

    takes: str
    about: str
    do: Callable[[Session, str], None]


def run_command(session: Session, line: str) -> None:
    """Run a line that begins with a slash. Raises UsageError for an unknown command or a wrong argument."""
    name, _, argument = line[1:].partition(" ")
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        meant = f"did you mean /{close[0]}?" if close else "/help lists all commands."
        raise UsageError(f"no such command: /{name}; {meant} A line that begins with // is text")
    command, argument = COMMANDS[name], argument.strip()
    if argument and not command.takes:
        raise UsageError(f"/{name}: takes no argument, received {argument!r:.40}")
    if not argument and command.takes and not command.takes.startswith("["):
        raise UsageError(f"/{name}: expected {command.takes}, as in /{name} {_EXAMPLES[command.takes]}")
    command.do(session, argument)


def _new(session: Session, _: str) -> None:
    session.chat.clear()
    session.steps = []
    session.page.remark("a new conversation")


def _save(session: Session, name: str) -> None:
    conversation = session.expect_conversation()
    path = user_path(name)
    if is_there(path, follow=True) and not session.confirm(f"{path} already exists. Replace it? [y/N] ", default=False):
        session.page.remark("not saved")
        return
    write_atomic(path, (json.dumps(conversation.to_json()) + "\n").encode())
    session.page.remark(f"saved {count(len(conversation.messages), 'message')}; /load {quoted(path)} restores them")


def _load(session: Session, name: str) -> None:
    path = user_path(name)
    conversation, number = read_conversation(path)
    session.take_up(conversation)
    more = f", the last of {number:,} conversations" if number > 1 else ""
    session.page.remark(f"loaded {count(len(conversation.messages), 'message')} of {path}{more}")
    if not conversation.ends_with_answer:
        session.answer(session.chat.retry())


def read_conversation(path: Path) -> tuple[Conversation, int]:
    """Return the last conversation in a file, and how many there are. Raises UsageError, OSError, DataError."""
    from tinygrad_chat.schema import parse_json
    from tinygrad_chat.text.conversations.dialects import conversation_of

    lines = [
        (number, line)
        for number, line in enumerate(read_plain(path, most=LARGEST_CHAT, follow=True).splitlines(), start=1)
        if line.strip()
    ]
    if not lines:
        raise UsageError(f"{path}: expected a line with a conversation, found none")
    where = f"{path}, line {lines[-1][0]}"
    kind: Any = dict[str, Any] | list[Any]  # one dialect is a bare list
    return conversation_of(parse_json(lines[-1][1], kind, source=where), where), len(lines)


def _system(session: Session, text: str) -> None:
    session.chat.system = text or None
    session.page.remark("the system message takes effect with the next answer" if text else "no system message")


def _temperature(session: Session, text: str) -> None:
    try:
        value = float(text)
    except ValueError:
        raise UsageError(f"/temperature: expected a number, received {text!r:.40}") from None
    session.chat.options = dataclasses.replace(session.chat.options, temperature=value)
    session.page.remark(f"temperature {value:g}")


def _retry(session: Session, _: str) -> None:
    session.answer(session.chat.retry())


def _edit(session: Session, text: str) -> None:
    conversation = session.expect_conversation()
    said = next(message.text for message in reversed(conversation.messages) if message.role == "user")
    changed = text or session.read_line("edit> ", prefill=said)
    if changed.strip():
        session.answer(session.chat.edit(changed))


def _tokens(session: Session, _: str) -> None:
    tokens, context = session.chat.token_count, session.chat.context
    left = f"{max(context - tokens, 0):,} left"
    session.page.remark(f"{count(tokens, 'token')} of the conversation in the model's context of {context:,}; {left}")


def _why(session: Session, _: str) -> None:
    if not session.steps:
        raise UsageError("/why: there is no answer yet")
    decode = session.chat.name_of
    alternatives = [[decode(token) for token, _ in step.alternatives] for step in session.steps]
    show_why(session.page, session.steps, [decode(step.token) for step in session.steps], alternatives)


def _help(session: Session, _: str) -> None:
    for name, command in COMMANDS.items():
        called = f"/{name} {command.takes}".ljust(ABOUT)
        session.page.passage([(called, "bold"), (command.about, "")], indent=ABOUT)
    for text in (
        'a line that ends in \\ continues on the next, as does everything between lines of """',
        "Ctrl-C stops an answer; Ctrl-D ends the chat; a line that begins with // is text that begins with /",
    ):
        session.page.remark(text)


def _quit(session: Session, _: str) -> None:
    session.ended = True


COMMANDS = {
    "new": Command("", "begin a new conversation", _new),
    "save": Command("FILE", "write the conversation to a file", _save),
    "load": Command("FILE", "continue a conversation from a file", _load),
    "system": Command("[TEXT]", "set the system message; without a text, remove it", _system),
    "temperature": Command("X", "below 1 more careful, above 1 more varied", _temperature),
    "retry": Command("", "get another answer to your last message", _retry),
    "edit": Command("[TEXT]", "change your last message", _edit),
    "tokens": Command("", "show how much of the context is used", _tokens),
    "why": Command("", "show how likely each token of the last answer was", _why),
    "help": Command("", "show these commands", _help),
    "quit": Command("", "end the chat", _quit),
}
_EXAMPLES = {"FILE": "chat.jsonl", "X": "0.5"}
