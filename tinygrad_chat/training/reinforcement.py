"""Reinforcement learning: a model answers problems, and learns from which of its own answers were right.

The policy gradient of GRPO (Shao et al., arXiv:2402.03300) as nanochat simplifies it: an answer's advantage is its
reward minus the mean of its group, and every sampled token has the same weight. As each answer is used once, by the
weights that sampled it, there is no ratio to clip and no KL term. docs/reinforcement.md derives it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.errors import UsageError
from tinygrad_chat.inference.options import GenerationOptions
from tinygrad_chat.ops.cross_entropy import IGNORED
from tinygrad_chat.seeds import rng
from tinygrad_chat.tasks.registry import open_task, practice_of, problems_of, running
from tinygrad_chat.tasks.task import PracticeTask, Problem
from tinygrad_chat.text.batches import WeightedBatch
from tinygrad_chat.text.conversations import ChatTemplate
from tinygrad_chat.text.tokenizers import Tokenizer
from tinygrad_chat.training.answering import Answer, Answering, Questions
from tinygrad_chat.training.batches import Drawn

HELD_OUT_SEED = 0  # of the evaluation problems, which are the same for every run


class Reinforcement:
    """Makes batches of a model's own answers to a task's problems.

    Problems and random numbers depend only on the seed, the batch's number and the row in it, so resuming a run needs
    no state beyond its weights.
    """

    def __init__(self, task: PracticeTask, tokenizer: Tokenizer, config: TrainingConfig) -> None:
        self._task, self._tokenizer = task, tokenizer
        self._objective, self._seed = config.objective, config.run.seed
        self._rows = config.data.batch_size
        ChatTemplate(tokenizer)  # refuses a tokenizer without chat tokens

    def draw(self, number: int, answering: Answering) -> Drawn:
        """Have a batch's problems answered, each by a group of answers; return the resulting training batch."""
        options, G = self._objective, self._objective.group_size
        problems = practice_of(self._task, self._rows // G, seed=_seed_of(self._seed, number))
        asked = [problem for problem in problems for _ in range(G)]
        streams = [rng(self._seed, "rollouts", number, *divmod(row, G)) for row in range(len(asked))]
        answers = self._answers(answering, asked, temperature=options.temperature, streams=streams)
        rewards = self._rewards(asked, answers).reshape(-1, G)
        advantages = rewards - rewards.mean(axis=1, keepdims=True)
        told = {
            "reward": float(rewards.mean()),
            "no_signal": float(np.mean(~advantages.any(axis=1))),
            "answer_length": float(np.mean([len(answer.tokens) for answer in answers])),
        }
        return Drawn(as_batch(answers, advantages.ravel()), told, has_signal=bool(advantages.any()))

    def score(self, answering: Answering) -> float:
        """Return the fraction of held-out problems that the model solves by greedy decoding."""
        return self._score(answering, samples=1, temperature=0)

    def sampled_score(self, answering: Answering, samples: int) -> float:
        """Return the same fraction for answers sampled as in training, `samples` per problem: an estimate of the
        expected reward that training maximises."""
        return self._score(answering, samples, self._objective.temperature)

    def _score(self, answering: Answering, samples: int, temperature: float) -> float:
        problems = problems_of(self._task, self._objective.eval_problems, seed=HELD_OUT_SEED)
        asked = [problem for problem in problems for _ in range(samples)]
        streams = [rng(HELD_OUT_SEED, "rollouts", row) for row in range(len(asked))]
        return float(
            self._rewards(asked, self._answers(answering, asked, temperature=temperature, streams=streams)).mean()
        )

    def _rewards(self, problems: Sequence[Problem], answers: Sequence[Answer]) -> np.ndarray:
        """Return 1 for each answer that solves its problem, else 0."""
        with running(self._task.name):
            solved = [problem.is_solved_by(answer.text) for problem, answer in zip(problems, answers, strict=True)]
        return np.array(solved, np.float64)

    def _answers(
        self,
        answering: Answering,
        problems: Sequence[Problem],
        *,
        temperature: float,
        streams: Sequence[np.random.Generator],
    ) -> list[Answer]:
        options = GenerationOptions(temperature=temperature, max_new_tokens=self._objective.max_new_tokens)
        asked = [problem.question for problem in problems]
        return answering.answers(Questions(asked, streams, self._tokenizer, options, self._rows))


def open_reinforcement(config: TrainingConfig, tokenizer: Tokenizer) -> Reinforcement | None:
    """Return the source of batches of a run that learns from rewards, None for any other run.

    Raises UsageError for an unknown task, a task with no practice problems, and a tokenizer without chat tokens.
    """
    if not config.objective.by_reward:
        return None
    task = open_task(str(config.objective.task))
    if not isinstance(task, PracticeTask):
        raise UsageError(f"--task {task.name}: has problems only for evaluation, none to train on")
    return Reinforcement(task, tokenizer, config)


def as_batch(answers: Sequence[Answer], advantages: Sequence[float]) -> WeightedBatch:
    """Return answers as tokens, targets and weights, each (B, T). Each sampled token is a target, and its weight is the
    advantage of its answer. The loss, -advantage * log p, makes better answers more likely."""
    length = max(len(answer.prompt) + len(answer.tokens) for answer in answers) - 1
    shape = len(answers), length
    tokens, targets = np.zeros(shape, np.int64), np.full(shape, IGNORED, np.int64)
    for row, answer in enumerate(answers):
        first, whole = len(answer.prompt) - 1, np.array([*answer.prompt, *answer.tokens])
        tokens[row, : len(whole) - 1] = whole[:-1]
        targets[row, first : first + len(answer.tokens)] = np.where(answer.drawn, answer.tokens, IGNORED)
    weights = np.where(targets == IGNORED, 0, np.asarray(advantages)[:, None]).astype(np.float32)
    return tokens, targets, weights


def _seed_of(seed: int, number: int) -> int:
    """Return a seed for the problems of a batch."""
    return int(rng(seed, "rollouts", number).integers(2**31))
