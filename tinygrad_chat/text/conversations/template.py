"""How a conversation becomes tokens: nanochat's template.

    <|bos|> <|user_start|> TEXT <|user_end|> <|assistant_start|> TEXT <|assistant_end|> <|user_start|> ...

A system message stands before the first user message's text, a blank line between them. Within an assistant's message
<|python_start|> CALL <|python_end|> asks a tool, and <|output_start|> RESULT <|output_end|> is what it answered.
What people write never becomes a special token: it is encoded as text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tinygrad_chat.errors import DataError, UsageError
from tinygrad_chat.text.conversations.conversation import CALL, RESULT, SYSTEM, TEXT, USER, Conversation, Message
from tinygrad_chat.text.tokenizers.tokenizer import Tokenizer

AROUND = {
    USER: ("<|user_start|>", "<|user_end|>"),
    "assistant": ("<|assistant_start|>", "<|assistant_end|>"),
    CALL: ("<|python_start|>", "<|python_end|>"),
    RESULT: ("<|output_start|>", "<|output_end|>"),
}
"""The special tokens before and after what somebody says, and before and after a part that is no text."""


class Rendered(NamedTuple):
    """A conversation as `tokens` (T,), and which of them the assistant writes: `trained` (T,) booleans.

    Only those count in the loss. What comes from the user, the system and tools is read and never imitated.
    """

    tokens: np.ndarray
    trained: np.ndarray


@dataclass(frozen=True)
class ChatTemplate:
    """Renders conversations for a tokenizer that has the special tokens of chats.

    Raises UsageError for one that lacks them.
    """

    tokenizer: Tokenizer

    def __post_init__(self) -> None:
        lacking = [name for pair in AROUND.values() for name in pair if name not in self.tokenizer.special_tokens]
        if lacking:
            raise UsageError(
                f"conversations: the tokenizer ({self.tokenizer.kind}) has no token {lacking[0]}; "
                "train with --tokenizer bpe, which has"
            )

    def token(self, name: str) -> int:
        """Return the special token of that name."""
        return self.tokenizer.special_tokens[name]

    def around(self, kind: str) -> tuple[int, int]:
        """Return the tokens that stand before and after a role's message, or a part of that kind."""
        start, end = AROUND[kind]
        return self.token(start), self.token(end)

    def render(self, conversation: Conversation) -> Rendered:
        """Return a conversation as tokens, and which of them are the assistant's own."""
        pieces = [_Piece(np.array([self.tokenizer.bos]), False)]
        system = ""
        for message in conversation.messages:
            if message.role == SYSTEM:
                system = message.text + "\n\n"
            else:
                pieces += self._message(message, system)
                system = ""
        if system:
            raise DataError("messages: expected a user's message after the system's")
        tokens = np.concatenate([piece.tokens for piece in pieces]).astype(np.int64)
        trained = np.concatenate([np.full(len(piece.tokens), piece.trained) for piece in pieces])
        return Rendered(tokens, trained)

    def count_system_tokens(self, conversation: Conversation) -> int:
        """Return how many of its tokens stand before the end of the system message; 0 without one."""
        first, *others = conversation.messages
        if first.role != SYSTEM or not others:
            return 0
        system = first.text + "\n\n"
        sizes = self.tokenizer.bytes_per_token()[self.tokenizer.encode(system + others[0].text)]
        return 2 + int((sizes.cumsum() <= len(system.encode())).sum())  # 2: BOS, and the user's beginning

    def render_prompt(self, conversation: Conversation) -> np.ndarray:
        """Return the tokens (T,) after which the assistant's next message begins.

        Raises DataError where it spoke last.
        """
        if conversation.ends_with_answer:
            raise DataError("messages: expected a user's message last, to be answered")
        tokens, _ = self.render(conversation)
        return np.append(tokens, self.around("assistant")[0])

    def _message(self, message: Message, system: str) -> list[_Piece]:
        own = message.role != USER
        start, end = self.around(message.role)
        pieces = [_Piece(np.array([start]), False)]
        for number, part in enumerate(message.parts):
            content = self.tokenizer.encode(part.text if number else system + part.text)
            if part.kind == TEXT:
                pieces.append(_Piece(content, own))
            else:
                before, after = self.around(part.kind)
                pieces.append(_Piece(np.concatenate([[before], content, [after]]), part.kind == CALL))
        return [*pieces, _Piece(np.array([end]), own)]


class _Piece(NamedTuple):
    tokens: np.ndarray
    trained: bool
