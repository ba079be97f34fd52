"""What a tokenizer knows about chats: the texts that stand between the messages."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tinygrad_chat.errors import ConfigError

LONGEST = 1 << 16  # characters of such a text, which may hold a model's default system message


@dataclass(frozen=True)
class Turns:
    """A chat template as the texts around the messages, in which special tokens are written by name.

    A conversation is `first` or, with a system message, `system` MESSAGE `behind_system`; then QUESTION `answer` ANSWER
    `question` QUESTION ...; and `end` after the last answer. An unanswered last question is followed by `asked`, and by
    `prompt` if an answer is to be generated. Messages of the roles in `stripped` lose the blanks around them.
    """

    first: str
    system: str
    behind_system: str
    answer: str
    question: str
    end: str
    asked: str
    prompt: str
    stripped: tuple[str, ...] = ()

    def state(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        return {**dataclasses.asdict(self), "stripped": list(self.stripped)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Turns:
        """Return the template that an untrusted `state` describes. Raises ConfigError if it describes none."""
        names = [field.name for field in dataclasses.fields(cls)]
        texts, stripped = [state.get(name) for name in names[:-1]], state.get("stripped")
        if not all(isinstance(text, str) and len(text) <= LONGEST for text in texts):
            raise ConfigError(f"turns: expected a text of at most {LONGEST:,} characters for each of {names[:-1]}")
        if not isinstance(stripped, list) or not all(isinstance(role, str) for role in stripped):
            raise ConfigError("turns: stripped: expected a list of roles")
        values: dict[str, Any] = dict(zip(names, [*texts, tuple(stripped)], strict=True))
        return cls(**values)


NANOCHAT = Turns(
    first="<|bos|><|user_start|>",
    system="<|bos|><|user_start|>",
    behind_system="\n\n",
    answer="<|user_end|><|assistant_start|>",
    question="<|assistant_end|><|user_start|>",
    end="<|assistant_end|>",
    asked="<|user_end|>",
    prompt="<|assistant_start|>",
)
"""nanochat's template, which the models trained here use."""
