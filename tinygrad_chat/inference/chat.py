"""A conversation with a local model, and which of its turns still fit the context."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

from tinygrad_chat.errors import UsageError
from tinygrad_chat.inference.engine import Engine
from tinygrad_chat.inference.options import GenerationOptions
from tinygrad_chat.inference.request import Steps
from tinygrad_chat.inference.turns import Turns
from tinygrad_chat.seeds import rng
from tinygrad_chat.text.conversations import TEXT, Conversation, Message, Part
from tinygrad_chat.text.conversations.conversation import USER

ROOM = 4  # at most 1 / ROOM of the context is reserved for an answer


class Chat(Turns):
    """One conversation. `reply` asks a question and yields the answer token by token.

    `options`, `system` and `tools` may be changed between two replies. When the conversation no longer fits the context
    with room for an answer, the model sees only the system message and the later turns, and `say` is told;
    `conversation` keeps all turns. Raises UsageError for a tokenizer without chat tokens.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        system: str | None = None,
        options: GenerationOptions | None = None,
        tools: bool = True,
        alternatives: int = 0,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.engine, self.tools, self.alternatives = engine, tools, alternatives
        self._template = engine.template
        self._say = say
        self._answers = 0  # answers begun so far: each draws from its own random stream
        self._left_out = 0  # number of oldest turns that the model no longer sees
        super().__init__(system, options)

    def clear(self) -> None:
        """Start over; the system message stays."""
        super().clear()
        self._left_out = 0

    @property
    def context(self) -> int:
        """The length of the model's context in tokens."""
        return self.engine.model.context

    @property
    def token_count(self) -> int:
        """How many tokens of the conversation so far the model sees."""
        turns = self._turns[self._left_out :]
        return len(self._template.render(self._shown(turns)).tokens) if turns else 0

    def name_of(self, token: int) -> str:
        """Return the text of a token, or the name of a special one."""
        names = {number: name for name, number in self._template.tokenizer.special_tokens.items()}
        return names.get(token) or self._template.tokenizer.decode([token])

    def reply(self, text: str) -> Steps:
        """Ask a question; yield the steps of the answer, which then becomes part of the conversation.

        If the iterator is closed early, the partial answer is kept. Raises DataError for an empty text, and UsageError
        for one that is too long for the context.
        """
        asked = Message(USER, (Part(TEXT, text),))
        shown = self._fitting(asked)
        if self.request:
            self.request.cancel()  # its steps may not have been read to the end
        random = rng(self.options.seed, "sampling", self._answers)
        self._answers += 1
        self._asked, self._is_answered = text, False
        request = self.engine.submit_answer(
            shown, self.options, alternatives=self.alternatives, tools=self.tools, random=random
        )
        self.request = request
        return self._answer(asked, request, self.engine.stream(request))

    def _fitting(self, asked: Message) -> Conversation:
        """Return what the model sees. If it is too long, drop enough of the oldest turns to fit half of the context.

        Dropping one turn with each question would mean reading all the others again each time.
        """
        self._left_out = min(self._left_out, len(self._turns))  # the last one may have been removed
        context = self.context
        most = context - min(self.options.max_new_tokens, context // ROOM)
        shown, length = self._without(self._left_out, asked)
        if length <= most:
            return shown
        turns = range(self._left_out + 1, len(self._turns))  # a loaded conversation may have thousands
        left_out = bisect_left(turns, True, key=lambda turn: self._without(turn, asked)[1] <= context // 2)
        left_out = min(self._left_out + 1 + left_out, len(self._turns))
        shown, length = self._without(left_out, asked)
        if length > most:
            raise UsageError(
                f"the message is too long: with it the prompt would have {length:,} tokens, and {most:,} leave room "
                f"for an answer within the context of {context:,}; shorten it"
            )
        if left_out > self._left_out:
            self._left_out = left_out
            self._say(
                f"the conversation no longer fits the context of {context:,} tokens; from now on the model does not "
                f"see its oldest turns ({left_out:,} of {len(self._turns):,})"
            )
        return shown

    def _without(self, turns: int, asked: Message) -> tuple[Conversation, int]:
        """Return the conversation without its oldest `turns`, and its length in tokens."""
        shown = self._shown(self._turns[turns:], asked)
        return shown, len(self._template.render_prompt(shown))
