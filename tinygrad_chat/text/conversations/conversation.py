"""A conversation: messages by a user and an assistant in turn, each of one or more parts.

>>> chat = Conversation.of("What is 2 + 3?", [Part(CALL, "2+3"), Part(RESULT, "5"), Part(TEXT, "5.")])
>>> chat.messages[0].text, chat.messages[1].text, chat.ends_with_answer
('What is 2 + 3?', '5.', True)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tinygrad_chat.errors import DataError

SYSTEM, USER, ASSISTANT = "system", "user", "assistant"
TEXT, CALL, RESULT = "text", "python", "python_output"
"""The kinds of parts, by nanochat's names: text, an assistant's call of a tool, and the tool's result."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a message: its kind, one of TEXT, CALL and RESULT, and its text."""

    kind: str
    text: str

    def __post_init__(self) -> None:
        if self.kind not in (TEXT, CALL, RESULT):
            raise DataError(f"part: expected one of {TEXT}, {CALL}, {RESULT}, received {self.kind!r:.80}")


@dataclass(frozen=True, slots=True)
class Message:
    """What one speaker says in a turn; only an assistant's message has parts other than text."""

    role: str
    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        if self.role not in (SYSTEM, USER, ASSISTANT):
            raise DataError(f"role: expected one of {SYSTEM}, {USER}, {ASSISTANT}, received {self.role!r:.80}")
        if self.role != ASSISTANT and any(part.kind != TEXT for part in self.parts):
            raise DataError(f"{self.role}: expected only text; only the assistant calls tools")
        if not any(part.text for part in self.parts):
            raise DataError(f"{self.role}: expected text, received none")

    @property
    def text(self) -> str:
        """The text of its parts, without tool calls and their results."""
        return "".join(part.text for part in self.parts if part.kind == TEXT)


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages: an optional one by the system, then by user and assistant in turn, the user first.

    Raises DataError for any other order.
    """

    messages: tuple[Message, ...]

    def __post_init__(self) -> None:
        roles = [message.role for message in self.messages]
        expected = [USER, ASSISTANT] * len(roles)
        spoken = roles[1:] if roles[:1] == [SYSTEM] else roles
        if not spoken:
            raise DataError("messages: expected at least one from the user, received none")
        for number, (role, due) in enumerate(zip(spoken, expected, strict=False), len(roles) - len(spoken)):
            if role != due:
                raise DataError(
                    f"messages[{number}].role: expected {due!r}, received {role!r}; user and assistant take turns, "
                    "the user first, and a system message comes before them"
                )

    @classmethod
    def of(cls, *said: str | Iterable[Part], system: str | None = None) -> Conversation:
        """Make a conversation of what user and assistant say in turn, as texts or as parts."""
        messages = [] if system is None else [Message(SYSTEM, (Part(TEXT, system),))]
        for number, each in enumerate(said):
            parts = (Part(TEXT, each),) if isinstance(each, str) else tuple(each)
            messages.append(Message(ASSISTANT if number % 2 else USER, parts))
        return cls(tuple(messages))

    @property
    def ends_with_answer(self) -> bool:
        """Whether the assistant spoke last, and not the user."""
        return self.messages[-1].role == ASSISTANT

    def to_json(self) -> dict[str, Any]:
        """Return it as `{"messages": [...]}`, the form in which chats are saved and trained on."""
        return {"messages": [{"role": message.role, "content": _content(message)} for message in self.messages]}


def _content(message: Message) -> str | list[dict[str, str]]:
    if all(part.kind == TEXT for part in message.parts):
        return message.text
    return [{"type": part.kind, "text": part.text} for part in message.parts]
