"""Where an answer calls a tool: the call is read, the tool is asked, and what it says becomes the next tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tinygrad_chat.text.conversations import CALL, RESULT, TEXT, ChatTemplate

Tool = Callable[[str], str]
"""What answers a call: text in, text out. It raises nothing, and returns soon."""

LONGEST_CALL = 64  # tokens, after which the call is over
LONGEST_RESULT = 64  # tokens; what a tool says beyond them is left out


class ToolCalls:
    """Follows an assistant's tokens: which may not come next, and which must, because a tool said so.

    Of a template's special tokens only those that have a place may come: what ends the answer and, with a `tool`, the
    beginning and the end of a call.
    """

    def __init__(self, template: ChatTemplate, tool: Tool | None) -> None:
        self._tokenizer, self._tool = template.tokenizer, tool if template.has_tools else None
        self._call_start, self._call_end = template.around(CALL)
        self._result_start, self._result_end = template.around(RESULT)
        special = frozenset(template.tokenizer.special_tokens.values())
        self.ends = template.ends
        self._outside = special - self.ends - ({self._call_start} if self._tool else frozenset())
        self._inside = special - {self._call_end}
        self._call: list[int] | None = None
        self._in_result = False

    @property
    def forbidden(self) -> frozenset[int]:
        """The tokens that cannot come next."""
        return self._outside if self._call is None else self._inside

    def after(self, token: int) -> tuple[str, Sequence[int]]:
        """Take a token; return what it is part of, and the tokens that must follow."""
        if self._in_result:
            self._in_result = token != self._result_end
            return RESULT, []
        if self._call is None:
            if token == self._call_start and self._tool:
                self._call = []
            return TEXT, []
        if token != self._call_end:
            self._call.append(token)
            return CALL, [self._call_end] if len(self._call) == LONGEST_CALL else []
        assert self._tool
        result = self._tool(self._tokenizer.decode(self._call))
        self._call, self._in_result = None, True
        tokens = self._tokenizer.encode(result).tolist()[:LONGEST_RESULT]
        return CALL, [self._result_start, *tokens, self._result_end]
