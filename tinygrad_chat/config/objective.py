"""The training objective: a group of options like those in groups.py. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass

from tinygrad_chat.errors import ConfigError
from tinygrad_chat.option import needs, option, validate
from tinygrad_chat.text.split import AUTO

GRPO = "grpo"
BY_REWARD = needs("objective", GRPO)


@dataclass(frozen=True, kw_only=True)
class ObjectiveOptions:
    """What is learned: to predict the next token, or to solve a task's problems by trying (docs/reinforcement.md)."""

    kind: str = option(
        AUTO,
        "what is learned: to predict the next token, as the data decides (auto), or to solve a --task by trying (grpo)",
        name="objective",
        choices=(AUTO, GRPO),
    )
    task: str | None = option(None, "the task whose problems the model tries to solve", needs=BY_REWARD)
    group_size: int = option(
        16, "answers to each problem of a step; --batch-size is the number of all answers", minimum=2, needs=BY_REWARD
    )
    temperature: float = option(1.0, "temperature of these answers: higher is more varied", above=0, needs=BY_REWARD)
    max_new_tokens: int = option(64, "largest number of tokens of an answer", minimum=1, fixed=False, needs=BY_REWARD)
    eval_problems: int = option(
        200, "held-out problems that an evaluation asks, each once", minimum=1, fixed=False, needs=BY_REWARD
    )

    @property
    def by_reward(self) -> bool:
        """Whether a run learns from rewards instead of texts."""
        return self.kind == GRPO

    def __post_init__(self) -> None:
        validate(self)
        if self.by_reward and self.task is None:
            raise ConfigError("--objective grpo: expected a --task with problems for the model to solve, received none")
