"""Reads rows in the formats in which chats are stored, as conversations.

    {"messages": [{"role": ..., "content": ...}, ...]}       OpenAI's; content as text or as parts, tools
    [{"role": ..., "content": ...}, ...]                     the bare list
    {"conversations": [{"from": "human", "value": ...}]}     ShareGPT's; or with role and content
    {"instruction": ..., "input": ..., "output": ...}        Alpaca's
    {"input": ..., "output": ...}                            a question and its answer; or prompt and completion,
                                                             or question and answer

>>> conversation_of({"instruction": "Add.", "input": "2, 3", "output": "5"}, "a.jsonl, line 1").messages[0].text
'Add.\\n\\n2, 3'
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygrad_chat.errors import DataError
from tinygrad_chat.formatting import one_line
from tinygrad_chat.text.conversations.conversation import (
    ASSISTANT,
    CALL,
    RESULT,
    SYSTEM,
    TEXT,
    USER,
    Conversation,
    Message,
    Part,
)

LISTS = ("messages", "conversations")
PAIRS = (("instruction", "output"), ("input", "output"), ("prompt", "completion"), ("question", "answer"))
KEYS = frozenset([*LISTS, *(key for pair in PAIRS for key in pair), "role", "content", "system"])
"""All keys of a row that are read."""
TOOL, FUNCTION_CALL = "tool", "function_call"
ROLES = {
    "system": SYSTEM,
    "developer": SYSTEM,
    "user": USER,
    "human": USER,
    "assistant": ASSISTANT,
    "gpt": ASSISTANT,
    FUNCTION_CALL: ASSISTANT,
    TOOL: TOOL,
    "function": TOOL,
    "observation": TOOL,
}
"""Who speaks, by the names of all dialects; case does not matter."""


def looks_like_conversation(row: Any) -> bool:
    """Return whether a row has the keys of one of the dialects, or is a single message, by mistake."""
    if isinstance(row, list):
        return True
    return isinstance(row, dict) and has_keys(row)


def has_keys(names: Any) -> bool:
    """Return whether keys or columns of these names are those of one of the dialects.

    >>> has_keys(["input", "output"]), has_keys(["output", "score"])
    (True, False)
    """
    alone = "role" in names and "content" in names
    return alone or any(key in names for key in LISTS) or any(a in names and b in names for a, b in PAIRS)


def conversation_of(row: Any, where: str) -> Conversation:
    """Return a row of any of the dialects as a conversation.

    Raises DataError, in one line that names the place of the row, `where`, and the key, for any other.
    """
    try:
        if isinstance(row, list):
            return _of_messages(row, "messages")
        if not isinstance(row, dict):
            raise DataError(f"expected an object or a list of messages, received {_shown(row)}")
        for key in LISTS:
            if key in row:
                return _of_messages(row[key], key)
        if "role" in row and "content" in row:
            raise DataError(
                'expected a conversation, received a single message; put the list of messages under "messages"'
            )
        for question, answer in PAIRS:
            if question in row and answer in row:
                if isinstance(row[question], list) and isinstance(row[answer], list):
                    return _of_messages([*row[question], *row[answer]], question)
                return _of_pair(row, question, answer)
        raise DataError(f"expected messages, conversations, or instruction and output, received the keys {_keys(row)}")
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def _of_pair(row: dict[str, Any], question: str, answer: str) -> Conversation:
    asked = _text(row[question], question)
    if question == "instruction" and row.get("input"):
        asked += "\n\n" + _text(row["input"], "input")
    system = _text(row["system"], "system") if row.get("system") else None
    said = (_text(row[answer], answer),)
    for key, text in ((question, asked), (answer, said[0])):
        if not text:
            raise DataError(f"{key}: expected text, received none")
    return Conversation.of(asked, *said, system=system)


def _of_messages(rows: Any, key: str) -> Conversation:
    if not isinstance(rows, Sequence) or isinstance(rows, str):
        raise DataError(f"{key}: expected a list of messages, received {_shown(rows)}")
    messages: list[tuple[str, list[Part]]] = []
    for number, row in enumerate(rows):
        place = f"{key}[{number}]"
        if not isinstance(row, dict):
            raise DataError(f"{place}: expected an object with role and content, received {_shown(row)}")
        speaks, says = ("role", "content") if "role" in row else ("from", "value")
        if speaks not in row:
            raise DataError(f"{place}.role: expected the speaker, received the keys {_keys(row)}")
        name = row[speaks]
        role = ROLES.get(name.lower()) if isinstance(name, str) else None
        if role is None:
            raise DataError(f"{place}.{speaks}: expected one of {', '.join(ROLES)}, received {_shown(name)}")
        kind = RESULT if role == TOOL else CALL if name.lower() == FUNCTION_CALL else TEXT
        parts = _parts(row, says, place, kind=kind)
        goes_on = bool(messages) and messages[-1][0] == ASSISTANT
        if role == TOOL:
            call = _first_unanswered(messages[-1][1]) if goes_on else None
            if call is None:
                raise DataError(f"{place}.{speaks}: expected a call before a tool's result, received none")
            messages[-1][1][call + 1 : call + 1] = parts  # as in the engine: each result after its call
        elif role == ASSISTANT and goes_on and messages[-1][1][-1].kind != TEXT:
            messages[-1][1].extend(parts)  # a call, its result and what follows are one message
        else:
            messages.append((role, parts))
        if not any(part.text for part in parts):
            raise DataError(f"{place}.{says}: expected text, received none")
    try:
        return Conversation(tuple(Message(role, tuple(parts)) for role, parts in messages))
    except DataError as error:
        raise DataError(str(error).replace("messages[", f"{key}[", 1)) from None


def _first_unanswered(parts: Sequence[Part]) -> int | None:
    """Return the index of the first call that no result follows, None if there is none."""
    following = [*(part.kind for part in parts[1:]), TEXT]
    calls = (at for at, part in enumerate(parts) if part.kind == CALL and following[at] != RESULT)
    return next(calls, None)


def _parts(row: dict[str, Any], key: str, place: str, *, kind: str) -> list[Part]:
    content, calls = row.get(key), row.get("tool_calls") or []
    where = f"{place}.{key}"
    if not isinstance(calls, list):
        raise DataError(f"{place}.tool_calls: expected a list, received {_shown(calls)}")
    if content is None and not calls:
        raise DataError(f"{where}: expected text, received {'null' if key in row else 'none'}")
    parts: list[Part] = []
    if isinstance(content, list):
        for number, each in enumerate(content):
            parts.append(_part(each, f"{where}[{number}]", kind))
    elif content:
        parts.append(Part(kind, _text(content, where)))
    elif content is not None:
        _text(content, where)
    return parts + [_call(call, f"{place}.tool_calls[{number}]") for number, call in enumerate(calls)]


def _part(row: Any, where: str, kind: str) -> Part:
    if isinstance(row, str):
        return Part(kind, _text(row, where))
    if not isinstance(row, dict) or row.get("type") not in (TEXT, CALL, RESULT):
        found = _shown(row.get("type") if isinstance(row, dict) else row)
        raise DataError(f"{where}.type: expected {TEXT}, {CALL} or {RESULT}, received {found}")
    given = row["type"]
    return Part(kind if given == TEXT else given, _text(row.get("text"), f"{where}.text"))


def _call(row: Any, where: str) -> Part:
    function = row.get("function") if isinstance(row, dict) else None
    if not isinstance(function, dict):
        raise DataError(f"{where}.function: expected an object with name and arguments, received {_shown(function)}")
    name, arguments = (_text(function.get(key), f"{where}.function.{key}") for key in ("name", "arguments"))
    return Part(CALL, f"{name}({arguments})")


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{where}: expected text, received {_shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise DataError(f"{where}: an unpaired surrogate is not a character; remove it") from None
    return value


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return "null" if value is None else f"{one_line(ascii(value)):.60}"


def _keys(row: dict[str, Any]) -> str:
    return one_line(", ".join(ascii(key)[1:-1][:40] for key in list(row)[:8])) or "none"
