"""A conversation with a model: what was said, what is asked next, and what still fits its context."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence

from tinygrad_chat.errors import TinygradChatError, UsageError
from tinygrad_chat.inference.engine import Engine
from tinygrad_chat.inference.options import GenerationOptions
from tinygrad_chat.inference.request import Request, Steps, TokenStep
from tinygrad_chat.seeds import rng
from tinygrad_chat.text.conversations import CALL, TEXT, Conversation, Message, Part
from tinygrad_chat.text.conversations.conversation import ASSISTANT, SYSTEM, USER

ROOM = 4  # of the context, one part in so many is left for an answer


class Chat:
    """One conversation. `reply` asks and yields the answer token by token.

    `options`, `system` and `tools` may be changed between two replies. Once the conversation no longer fits the context
    with room for an answer, the model is shown only its later turns and the system message, and `say` is told;
    `conversation` keeps all of it. Raises UsageError for a tokenizer without the tokens of chats.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        system: str | None = None,
        options: GenerationOptions | None = None,
        tools: bool = True,
        rivals: int = 0,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.engine, self.options, self.tools, self.rivals = engine, options or GenerationOptions(), tools, rivals
        self.system = system
        self.request: Request | None = None
        """What was asked of the engine last: its `finish_reason` says why the answer ended."""
        self._template = engine.template
        self._say = say
        self._answers = 0  # how many were begun: each draws from a stream of its own
        self._asked, self._is_answered = "", False
        self.clear()

    def clear(self) -> None:
        """Begin anew; the system message stays."""
        self._turns: list[tuple[Message, Message]] = []
        self._left_out = 0  # of the oldest turns

    @property
    def conversation(self) -> Conversation | None:
        """All that was said, None before the first answer. To set it is to go on from there."""
        return Conversation((*self._system, *_messages(self._turns))) if self._turns else None

    @conversation.setter
    def conversation(self, conversation: Conversation | None) -> None:
        if conversation is None:
            self.clear()
            return
        messages = list(conversation.messages)
        self.system = messages.pop(0).text if messages[0].role == SYSTEM else None
        self.clear()
        self._turns = list(zip(messages[::2], messages[1::2], strict=False))  # what was not answered is not said
        self._is_answered = len(messages) % 2 == 0
        self._asked = messages[-2 if self._is_answered else -1].text

    @property
    def token_count(self) -> int:
        """How many tokens the model is shown of the conversation so far."""
        turns = self._turns[self._left_out :]
        shown = Conversation((*self._system, *_messages(turns))) if turns else None
        return len(self._template.render(shown).tokens) if shown else 0

    def reply(self, text: str) -> Steps:
        """Say something; yield the steps of the answer, which is then part of the conversation.

        Where the iterator is closed early, what there is of the answer is kept. Raises DataError for an empty text, and
        UsageError for one that is too long for the context.
        """
        asked = Message(USER, (Part(TEXT, text),))
        shown = self._fitting(asked)
        if self.request:
            self.request.cancel()  # nobody may have waited for its end
        random = rng(self.options.seed, "sampling", self._answers)
        self._answers += 1
        self._asked, self._is_answered = text, False
        self.request = self.engine.submit_answer(
            shown, self.options, rivals=self.rivals, tools=self.tools, random=random
        )
        return self._answer(asked, self.request)

    def retry(self) -> Steps:
        """Ask the last question again: what was answered is forgotten. Raises UsageError where nothing was asked."""
        return self.edit(self._asked)

    def edit(self, text: str) -> Steps:
        """Ask something else instead of the last question. Raises UsageError where nothing was asked."""
        if not self._asked:
            raise UsageError("chat: expected a question before this, received none")
        turns, left_out = self._turns, self._left_out
        if turns and self._is_answered:
            self._turns = turns[:-1]
            self._left_out = min(left_out, len(self._turns))
        try:
            return self.reply(text)
        except TinygradChatError:  # as for a text that is too long: then nothing has changed
            self._turns, self._left_out = turns, left_out
            raise

    def _answer(self, asked: Message, request: Request) -> Steps:
        steps: list[TokenStep] = []
        try:
            for step in self.engine.stream(request):
                steps.append(step)
                yield step
        finally:
            request.cancel()
            parts = _parts(steps)
            if any(part.text for part in parts):
                self._turns.append((asked, Message(ASSISTANT, parts)))
                self._is_answered = True

    @property
    def _system(self) -> tuple[Message, ...]:
        return (Message(SYSTEM, (Part(TEXT, self.system),)),) if self.system else ()

    def _fitting(self, asked: Message) -> Conversation:
        """Return what the model is shown. Once it is too much, so many of the oldest turns go that it is half of the
        context: to leave out one with each question would be to read all the others again each time."""
        context = self.engine.model.context
        most = context - min(self.options.max_new_tokens, context // ROOM)
        shown, length = self._without(self._left_out, asked)
        if length <= most:
            return shown
        turns = range(self._left_out + 1, len(self._turns))  # a conversation that was loaded may have thousands
        left_out = bisect_left(turns, True, key=lambda turn: self._without(turn, asked)[1] <= context // 2)
        left_out = min(self._left_out + 1 + left_out, len(self._turns))
        shown, length = self._without(left_out, asked)
        if length > most:
            raise UsageError(
                f"the message is too long: with it the model would read {length:,} tokens, and {most:,} leave room "
                f"for an answer within its context of {context:,}; say it in fewer words"
            )
        if left_out > self._left_out:
            self._left_out = left_out
            self._say(
                f"the conversation no longer fits the context of {context:,} tokens; from now on the model does not "
                f"see its oldest turns ({left_out:,} of {len(self._turns):,})"
            )
        return shown

    def _without(self, turns: int, asked: Message) -> tuple[Conversation, int]:
        """Return what is shown without so many of the oldest turns, and how many tokens that is."""
        shown = Conversation((*self._system, *_messages(self._turns[turns:]), asked))
        return shown, len(self._template.render_prompt(shown))


def _messages(turns: Sequence[tuple[Message, Message]]) -> Iterator[Message]:
    return itertools.chain.from_iterable(turns)


def _parts(steps: Sequence[TokenStep]) -> tuple[Part, ...]:
    """Return what was said; a call that was not over, and one without its whole result, was not."""
    groups = [(kind, list(group)) for kind, group in itertools.groupby(steps, key=lambda step: step.kind)]
    parts = [Part(kind, "".join(step.text for step in group)) for kind, group in groups]
    if parts and parts[-1].kind != TEXT:
        parts.pop()
        if parts and parts[-1].kind == CALL:
            parts.pop()
    return tuple(part for part in parts if part.text or part.kind != TEXT)
