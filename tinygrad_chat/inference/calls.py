"""Tool calls in an answer: the call is parsed, the tool is run, and its result is inserted as the next tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tinygrad_chat.text.conversations import CALL, RESULT, TEXT, ChatTemplate

Tool = Callable[[str], str]
"""A function that answers a call: text in, text out. It must not raise, and must return quickly."""

LONGEST_CALL = 64  # tokens, after which the call is ended
LONGEST_RESULT = 64  # tokens; the rest of a longer result is cut off


class ToolCalls:
    """Tracks an assistant's tokens: which ones are forbidden next, and which are forced by a tool's result.

    Of the template's special tokens only those with a place in an answer may come: its end and, with a `tool`, the
    beginning and the end of a call.
    """

    def __init__(self, template: ChatTemplate, tool: Tool | None) -> None:
        self._tokenizer, self._tool = template.tokenizer, tool if template.has_tools else None
        self._call_start, self._call_end = template.around(CALL)
        self._result_start, self._result_end = template.around(RESULT)
        special = frozenset(template.tokenizer.special_tokens.values())
        self.stop_tokens = template.stop_tokens
        self._outside = special - self.stop_tokens - ({self._call_start} if self._tool else frozenset())
        self._inside = special - {self._call_end}
        self._call: list[int] | None = None
        self._in_result = False

    @property
    def forbidden(self) -> frozenset[int]:
        """The tokens that may not come next."""
        return self._outside if self._call is None else self._inside

    def after(self, token: int) -> tuple[str, Sequence[int]]:
        """Take a token; return the kind of part it belongs to, and the tokens that must follow."""
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
