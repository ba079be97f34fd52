"""Renders a conversation as tokens: by nanochat's template or, for an imported model, by the one it was trained with.

    <|bos|> <|user_start|> TEXT <|user_end|> <|assistant_start|> TEXT <|assistant_end|> <|user_start|> ...

In nanochat's, a system message stands before the first user message's text, with a blank line between them. Within an
assistant's message, <|python_start|> CALL <|python_end|> calls a tool, and <|output_start|> RESULT <|output_end|> is
its result. The text of a message never becomes a special token: it is encoded as plain text.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tinygrad_chat.errors import DataError, UsageError
from tinygrad_chat.text.conversations.conversation import CALL, RESULT, SYSTEM, TEXT, USER, Conversation, Message
from tinygrad_chat.text.tokenizers.tokenizer import BOS, Tokenizer
from tinygrad_chat.text.tokenizers.turns import NANOCHAT, Turns

AROUND = {
    USER: ("<|user_start|>", "<|user_end|>"),
    "assistant": ("<|assistant_start|>", "<|assistant_end|>"),
    CALL: ("<|python_start|>", "<|python_end|>"),
    RESULT: ("<|output_start|>", "<|output_end|>"),
}
"""The special tokens before and after a role's message, and before and after a part that is not text."""

NO_TOKEN = -1


class Rendered(NamedTuple):
    """A conversation as `tokens` (T,), and which of them the assistant writes: `trained` (T,) booleans.

    Only those count in the loss. What the user, the system and tools write is context, never a target.
    """

    tokens: np.ndarray
    trained: np.ndarray


class _Piece(NamedTuple):
    """A special token's number, or a text: the template's own or, if `said`, a message's."""

    content: int | str
    trained: bool
    said: bool = False


@dataclass(frozen=True)
class ChatTemplate:
    """Renders conversations for a tokenizer that has the special tokens of chats, or its own template.

    Raises UsageError if it has neither.
    """

    tokenizer: Tokenizer

    def __post_init__(self) -> None:
        if self.has_tools:
            names = [*itertools.chain.from_iterable(AROUND.values()), BOS]
            lacking = [name for name in names if name not in self.tokenizer.special_tokens]
            if lacking:
                raise UsageError(
                    f"conversations: the tokenizer ({self.tokenizer.kind}) has no token {lacking[0]}; "
                    "train with --tokenizer bpe, which has it"
                )
        elif not self._beginnings_agree:
            raise UsageError("conversations: expected a chat template that begins with a special token")

    @functools.cached_property
    def turns(self) -> Turns:
        """The texts around the messages."""
        return getattr(self.tokenizer, "turns", None) or NANOCHAT

    @property
    def has_tools(self) -> bool:
        """Whether an answer may call tools."""
        return self.turns == NANOCHAT

    @property
    def beginning(self) -> int:
        """The token with which every conversation begins."""
        return int(self._pieces["first"][0].content)

    @functools.cached_property
    def stop_tokens(self) -> frozenset[int]:
        """The tokens that end an answer: its own last one, the first of a user's message, and those that end a text."""
        return frozenset({self.answer_end, *self.around(USER)[:1], *self.tokenizer.stop_tokens}) - {NO_TOKEN}

    @property
    def answer_end(self) -> int:
        """The token with which the assistant ends an answer."""
        return next(_specials(self._pieces["end"]), NO_TOKEN)

    def around(self, kind: str) -> tuple[int, int]:
        """Return the tokens before and after a role's message, or a part of that kind; NO_TOKEN if it has none."""
        start, end = (self.tokenizer.special_tokens.get(name, NO_TOKEN) for name in AROUND[kind])
        return start, end

    def render(self, conversation: Conversation) -> Rendered:
        """Return a conversation as tokens, and which of them are the assistant's own."""
        last = "end" if conversation.ends_with_answer else "asked"
        return self._encoded([*self._said(conversation), *self._pieces[last]])

    def render_prompt(self, conversation: Conversation) -> np.ndarray:
        """Return the prompt (T,) after which the assistant's next message begins.

        Raises DataError if the assistant spoke last.
        """
        if conversation.ends_with_answer:
            raise DataError("messages: expected a user message last")
        return self._encoded([*self._said(conversation), *self._pieces["asked"], *self._pieces["prompt"]]).tokens

    def count_system_tokens(self, conversation: Conversation) -> int:
        """Return how many tokens of a conversation lie before the end of its system message; 0 without one."""
        if conversation.messages[0].role != SYSTEM or len(conversation.messages) == 1:
            return 0
        pieces = list(itertools.islice(self._said(conversation), len(self._pieces["system"]) + 1))
        pieces += self._pieces["behind_system"]
        with_question = self._encoded([*pieces, _Piece(self._text(conversation.messages[1]), False, said=True)]).tokens
        size = sum(len(str(piece.content).encode()) for piece in pieces if isinstance(piece.content, str))
        return int((self.tokenizer.bytes_per_token()[with_question].cumsum() <= size).sum())

    def borders(self, tokens: np.ndarray, *, with_system: bool) -> tuple[list[int], list[int]]:
        """Return the indices, for each turn of a rendered conversation (N,), of the last token before the user's text,
        and of the first token of the prompt for the answer."""
        sizes = {name: len(self._tokens_of(name)) for name in ("first", "system", "question", "asked")}
        first = sizes["system" if with_system else "first"] - 1
        asked = [first, *(found + sizes["question"] - 1 for found in self._found(tokens, "question"))]
        return asked, [found + sizes["asked"] for found in self._found(tokens, "answer")]

    def first_question(self, tokens: np.ndarray) -> Conversation | None:
        """Return the system message and the first question of a rendered conversation (N,); None if it does not begin
        with them, or ends before the answer."""
        parts = self._parts(tokens)
        system, behind = None, self._behind("first", parts)
        if behind is None:
            behind = self._behind("system", parts)
            system = behind and behind[0]
            behind = behind and self._behind("behind_system", behind[1:])
        asked = [piece.content for piece in self._pieces["answer"][:1]]
        if not behind or not isinstance(behind[0], str) or not asked or behind[1:2] != asked:
            return None
        return Conversation.of(behind[0], system=system if isinstance(system, str) else None)

    def _parts(self, tokens: np.ndarray) -> list[int | str]:
        """Return the special tokens by their numbers, and the texts between them."""
        names = {*self.tokenizer.special_tokens.values(), *getattr(self.tokenizer, "added_tokens", {}).values()}
        parts: list[int | str] = []
        for special, group in itertools.groupby(tokens.tolist(), names.__contains__):
            run = list(group)
            parts += run if special else [self.tokenizer.decode(run)]
        return parts

    def _behind(self, name: str, parts: list[int | str]) -> list[int | str] | None:
        """Return what follows a text of the template, None if `parts` do not begin with it."""
        for piece in self._pieces[name]:
            first = parts[0] if parts else ""
            if isinstance(piece.content, int):
                if first != piece.content:
                    return None
                parts = parts[1:]
            elif isinstance(first, str) and first.startswith(piece.content):
                rest = first.removeprefix(piece.content)
                parts = [rest, *parts[1:]] if rest else parts[1:]
            else:
                return None
        return parts

    def _tokens_of(self, name: str) -> np.ndarray:
        return self._encoded(self._pieces[name]).tokens

    def _found(self, tokens: np.ndarray, name: str) -> list[int]:
        """Return where a text of the template occurs; its last token may be merged with the message after it."""
        sought = self._tokens_of(name)
        if not isinstance(self._pieces[name][-1].content, int):
            sought = sought[:-1]
        places = np.arange(len(tokens) - len(sought) + 1)
        for at, token in enumerate(sought):
            places = places[tokens[places + at] == token]
        return places.tolist()

    @functools.cached_property
    def _pieces(self) -> dict[str, list[_Piece]]:
        """The template's texts, and the tokens around tool calls and results, as pieces."""
        names = {**self.tokenizer.special_tokens, **getattr(self.tokenizer, "added_tokens", {})}
        longest_first = sorted(names, key=len, reverse=True)
        pattern = re.compile(f"({'|'.join(map(re.escape, longest_first))})")

        def pieces(text: str) -> list[_Piece]:
            return [_Piece(names.get(part, part), False) for part in pattern.split(text) if part]

        texts = {name: value for name, value in vars(self.turns).items() if isinstance(value, str)}
        found = {name: pieces(text) for name, text in texts.items()}
        for name in ("end", "question"):
            found[name] = _own_to_first_special(found[name])
        for kind in (CALL, RESULT):
            start, end = (_Piece(token, kind == CALL) for token in self.around(kind))
            found[kind] = [start, end]
        return found

    @property
    def _beginnings_agree(self) -> bool:
        firsts = [self._pieces[name][:1] for name in ("first", "system")]
        return all(each and isinstance(each[0].content, int) for each in firsts) and firsts[0] == firsts[1]

    def _said(self, conversation: Conversation) -> Iterator[_Piece]:
        """Yield the messages, and the template's texts before and between them."""
        before = "first"
        for message in conversation.messages:
            if message.role == SYSTEM:
                yield from self._pieces["system"]
                yield _Piece(self._text(message), False, said=True)
                before = "behind_system"
            elif message.role == USER:
                yield from self._pieces[before]
                yield _Piece(self._text(message), False, said=True)
            else:
                yield from self._pieces["answer"]
                yield from self._answered(message)
                before = "question"

    def _answered(self, message: Message) -> Iterator[_Piece]:
        for part in message.parts:
            if part.kind == TEXT:
                yield _Piece(part.text.strip() if message.role in self.turns.stripped else part.text, True, said=True)
            elif self.has_tools:
                start, end = self._pieces[part.kind]
                yield from (start, _Piece(part.text, part.kind == CALL, said=True), end)
            else:
                raise DataError("messages: the model's chat template does not support tool calls; remove them")

    def _text(self, message: Message) -> str:
        return message.text.strip() if message.role in self.turns.stripped else message.text

    def _encoded(self, pieces: Iterable[_Piece]) -> Rendered:
        """Encode pieces: text of the template together with the message next to it, as another program would."""
        tokens: list[int] = []
        trained: list[bool] = []
        for together in _joined(pieces):
            first = together[0]
            if isinstance(first.content, int):
                tokens.append(first.content)
                trained.append(first.trained)
                continue
            found = self._encode(together)
            tokens += found.tolist()
            trained += [first.trained] * len(found) if len(together) == 1 else self._trained(together, found)
        return Rendered(np.array(tokens, np.int64), np.array(trained, bool))

    def _encode(self, together: list[_Piece]) -> np.ndarray:
        return self.tokenizer.encode("".join(str(piece.content) for piece in together))

    def _trained(self, together: list[_Piece], tokens: np.ndarray) -> list[bool]:
        """Return which tokens of some pieces are trained: those that begin in a trained piece."""
        sizes = self.tokenizer.bytes_per_token()[tokens]
        ends = np.cumsum([len(str(piece.content).encode("utf-8", "surrogateescape")) for piece in together])
        at = np.searchsorted(ends, np.cumsum(sizes) - sizes, side="right")
        return np.array([piece.trained for piece in together])[np.minimum(at, len(together) - 1)].tolist()


def _joined(pieces: Iterable[_Piece]) -> Iterator[list[_Piece]]:
    """Yield groups of pieces to encode together: a special token, or texts without two `said` ones in a row."""
    together: list[_Piece] = []
    for piece in pieces:
        apart = together and (together[-1].said and piece.said)
        if together and (apart or isinstance(piece.content, int) or isinstance(together[-1].content, int)):
            yield together
            together = []
        together.append(piece)
    if together:
        yield together


def _own_to_first_special(pieces: list[_Piece]) -> list[_Piece]:
    """Return the pieces after an answer, trained up to the first special token, which the assistant itself writes."""
    own = next((at for at, piece in enumerate(pieces) if isinstance(piece.content, int)), -1) + 1
    return [piece._replace(trained=at < own) for at, piece in enumerate(pieces)]


def _specials(pieces: list[_Piece]) -> Iterator[int]:
    return (piece.content for piece in pieces if isinstance(piece.content, int))
