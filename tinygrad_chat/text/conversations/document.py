"""A conversation among the documents of a corpus: as JSON it is hashed and held out, as a conversation rendered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from tinygrad_chat.errors import DataError
from tinygrad_chat.text.conversations.conversation import Conversation


@dataclass(frozen=True)
class ChatDocument:
    """A conversation that ends with an answer. As an iterable of text it is its JSON, in one piece."""

    conversation: Conversation

    def __iter__(self) -> Iterator[str]:
        yield json.dumps(self.conversation.to_json(), ensure_ascii=False)

    def texts(self) -> Iterator[str]:
        """Yield what is said in it, part by part: what a tokenizer is learned from."""
        for message in self.conversation.messages:
            for part in message.parts:
                yield part.text


def chat_document(conversation: Conversation, where: str) -> ChatDocument:
    """Return a conversation as a document, without a question at its end that nobody has answered.

    Raises DataError, naming `where` it stands, where there is no answer, or a text is none.
    """
    if not conversation.ends_with_answer:
        messages = conversation.messages[:-1]
        if not messages or messages[-1].role != "assistant":
            raise DataError(f"{where}: expected an answer by the assistant, received none; take the row out")
        conversation = Conversation(messages)
    try:
        "".join(ChatDocument(conversation)).encode()
    except UnicodeEncodeError:
        raise DataError(f"{where}: half a surrogate pair is no character; take it out") from None
    return ChatDocument(conversation)
