"""A conversation as a document of a corpus: it is hashed and split as JSON, and rendered as a conversation."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass

from tinygrad_chat.errors import DataError
from tinygrad_chat.text.conversations.conversation import ASSISTANT, Conversation, Message

_written = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(frozen=True)
class ChatDocument:
    """A conversation that ends with an answer, and the `unanswered` question after it, if there is one.

    As an iterable of text it is the JSON of both, in one piece: with the question, it is a different document.
    """

    conversation: Conversation
    unanswered: Message | None = None

    def __iter__(self) -> Iterator[str]:
        yield self.text

    @functools.cached_property
    def text(self) -> str:
        """The JSON of the conversation and the unanswered question."""
        whole = self.conversation
        if self.unanswered is not None:
            whole = Conversation((*whole.messages, self.unanswered))
        return _written(whole.to_json())

    def texts(self) -> Iterator[str]:
        """Yield the text of each part of the conversation, to train a tokenizer on."""
        for message in self.conversation.messages:
            for part in message.parts:
                yield part.text


def chat_document(conversation: Conversation, where: str) -> ChatDocument:
    """Return a conversation as a document; an unanswered question at its end is kept apart.

    Raises DataError, naming its place `where`, if there is no answer, or a text is not valid Unicode.
    """
    unanswered = None
    if not conversation.ends_with_answer:
        *messages, unanswered = conversation.messages
        if not messages or messages[-1].role != ASSISTANT:
            raise DataError(f"{where}: expected an answer by the assistant, received none; remove the row")
        conversation = Conversation(tuple(messages))
    document = ChatDocument(conversation, unanswered)
    try:
        document.text.encode()
    except UnicodeEncodeError:
        raise DataError(f"{where}: an unpaired surrogate is not a character; remove it") from None
    return document
