"""Learning from rewards: what becomes a batch, what the log says, exact resumption, and that the reward rises."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.test_resume import finish, kill_at, remains
from tests.training.test_start_from import start_from
from tinygrad_chat import GPT, ModelOptions
from tinygrad_chat.errors import ConfigError, UsageError
from tinygrad_chat.models.scalar import ScalarModel
from tinygrad_chat.optim import SGD
from tinygrad_chat.reports.charts import other_charts
from tinygrad_chat.reports.content import read_report
from tinygrad_chat.tasks import Problem
from tinygrad_chat.text.conversations import Conversation
from tinygrad_chat.training.answering import Answer
from tinygrad_chat.training.batches import Drawn
from tinygrad_chat.training.facts import resolve_with_facts
from tinygrad_chat.training.reinforcement import as_batch
from tinygrad_chat.training.run import Run, resume_run
from tinygrad_chat.training.step import TrainStep, accumulate_gradient

Start = Callable[..., Run]
TRIES: dict[str, Any] = {
    "objective": "grpo",
    "task": "brief",
    "batch_size": 12,
    "group_size": 4,
    "max_new_tokens": 5,
    "eval_problems": 5,
    "lr": 0.01,
}
ANSWERS = [Answer([1, 2, 3], [4, 5, 6], [True, False, True], "a"), Answer([1, 2], [3], [True], "b")]


class Brief:
    """Answer in few characters; what a model that knows nothing manages now and then."""

    name, about, chance, most = "brief", "answer briefly", 0.0, 3

    def problems(self, count: int, seed: int) -> Iterator[Problem]:
        for number in range(count):
            yield Problem(Conversation.of(f"t{number}"), "", lambda text: len(text) <= self.most)

    def practice(self, count: int, seed: int) -> Iterator[Problem]:
        for number in range(count):
            yield Problem(Conversation.of(f"p{(seed + number) % 7}"), "", lambda text: len(text) <= self.most)


class HeldOut:
    """A task that has nothing to practise on."""

    name, about, chance = "held-out", "nothing", 0.0
    problems = Brief.problems


class Impossible(Brief):
    """None of its problems is ever solved."""

    most = -1


@pytest.fixture(autouse=True)
def tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the tasks of this file have names."""
    made = {"brief": Brief, "impossible": Impossible, "held-out": HeldOut}
    monkeypatch.setattr("tinygrad_chat.training.reinforcement.open_task", lambda name: made[name]())


@pytest.fixture
def parent(start: Start) -> Path:
    run = start("parent", tokenizer="bpe", vocabulary=265, context=24)
    finish(run)
    return run.folder.path


def tried(parent: Path, folder: Path, **settings: Any) -> Run:
    return start_from(parent, folder, **TRIES | settings)


def test_tokens_that_were_drawn_are_targets_and_weigh_what_their_answer_is_worth():
    tokens, targets, weights = as_batch(ANSWERS, [0.25, -0.75])
    assert tokens.tolist() == [[1, 2, 3, 4, 5], [1, 2, 0, 0, 0]]
    assert targets.tolist() == [[-1, -1, 4, -1, 6], [-1, 3, -1, -1, -1]]
    assert weights.tolist() == [[0, 0, 0.25, 0, 0.25], [0, -0.75, 0, 0, 0]]


@pytest.mark.parametrize("engine", [functools.partial(GPT, dtype=np.float64), ScalarModel], ids=["GPT", "ScalarModel"])
def test_the_loss_is_minus_the_advantage_times_the_log_probability_a_token(engine: Any):
    model = engine(7, ModelOptions(layers=1, heads=2, width=8, context=5))
    tokens, targets, weights = as_batch(ANSWERS, [0.25, -0.75])
    losses = model.token_losses(tokens, targets)  # minus the log-probabilities
    expected = (0.25 * losses[0].sum() - 0.75 * losses[1].sum()) / 3
    assert accumulate_gradient(model, (tokens, targets, weights), micro_batches=2) == pytest.approx(expected, rel=1e-6)


def test_a_step_makes_what_did_better_likelier_and_what_did_worse_less_likely():
    model = GPT(7, ModelOptions(layers=1, heads=2, width=8, context=5), dtype=np.float64)
    tokens, targets, weights = as_batch(ANSWERS, [0.5, -0.5])
    before = model.token_losses(tokens, targets)
    TrainStep(model, SGD(model.parameters()), lambda step: 0.1)((tokens, targets, weights), 0)
    after = model.token_losses(tokens, targets)
    assert after[0].sum() < before[0].sum()
    assert after[1].sum() > before[1].sum()


def test_batches_are_groups_of_answers_and_depend_on_seed_number_and_weights_alone(parent: Path, tmp_path: Path):
    run = tried(parent, tmp_path / "run")

    def rows(drawn: Drawn) -> list[list[Any]]:
        return [array.tolist() for array in drawn.batch]

    assert rows(run.draw(5)) == rows(run.draw(5))
    assert rows(run.draw(5)) != rows(run.draw(6))
    tokens, targets, *others = run.draw(5).batch
    (weights,) = others
    assert len(tokens) == 12
    prompts = [row[: np.argmax(counted)].tolist() for row, counted in zip(tokens, targets >= 0, strict=True)]
    assert all(prompts[0:4].count(prompt) == 4 for prompt in prompts[0:4])
    assert len({tuple(row) for row in tokens[:4].tolist()}) > 1  # a group's answers differ
    of_answers = weights[np.arange(12), np.argmax(targets >= 0, axis=1)].reshape(3, 4)
    np.testing.assert_allclose(of_answers.sum(axis=1), 0, atol=1e-6)


def test_the_reward_rises_and_the_log_says_how(parent: Path, tmp_path: Path):
    run = tried(parent, tmp_path / "run", steps=20, eval_every=20, lr=0.1, batch_size=24)
    finish(run)
    records = run.folder.records()
    rewards = [record["reward"] for record in records if "reward" in record]
    assert np.mean(rewards[-5:]) > np.mean(rewards[:5]) + 0.2
    scores = [record["val_reward"] for record in records if "val_reward" in record]
    assert scores[-1] > scores[0]
    assert records[0].keys() >= {"loss", "reward", "no_signal", "answer_length", "val_reward", "val_loss"}
    assert 1 <= records[0]["answer_length"] <= 5
    assert run.progress.best_step == 20
    report = read_report(run.folder)
    assert other_charts(report)[0].title == "Reward"
    assert report.key_numbers[0] == ("best val reward", "1.0000", "at step 20")
    assert report.summary.tokens is None  # how long answers get, nobody knows


def test_held_out_problems_are_scored_by_the_likeliest_and_by_drawn_answers(parent: Path, tmp_path: Path):
    run = tried(parent, tmp_path / "run", eval_problems=6)
    assert run.reinforcement
    likeliest, drawn = run.reinforcement.score(run.train_step), run.reinforcement.sampled_score(run.train_step, 8)
    assert 6 * likeliest == pytest.approx(round(6 * likeliest))
    assert 48 * drawn == pytest.approx(round(48 * drawn))
    assert round(48 * drawn) % 8  # some answers to a problem are right, and others wrong
    assert drawn == run.reinforcement.sampled_score(run.train_step, 8)


@pytest.mark.profile("ci")
def test_a_run_that_was_killed_goes_on_to_the_same_bits(parent: Path, tmp_path: Path):
    whole, killed = (tried(parent, tmp_path / name) for name in ("whole", "killed"))
    finish(whole)
    kill_at(killed, 4)
    resumed = resume_run(killed.folder.path, {})
    finish(resumed)
    assert remains(resumed) == remains(whole)


def test_where_all_of_every_group_fail_nothing_moves(parent: Path, tmp_path: Path):
    run = tried(parent, tmp_path / "run", task="impossible")
    before = run.model.parameters().state()
    finish(run)
    for name, array in run.model.parameters().state().items():
        np.testing.assert_array_equal(array, before[name])
    record = run.folder.records()[0]
    assert (record["loss"], record["reward"], record["no_signal"]) == (0, 0, 1)
    assert "skipped_spike" not in record
    assert all(np.isfinite(value) for record in run.folder.records() for value in record.values())


def test_adapters_learn_from_rewards_too(parent: Path, tmp_path: Path):
    run = tried(parent, tmp_path / "run", lora=2)
    before = run.model.parameters().data.copy()
    finish(run)
    assert np.any(run.model.parameters().data != before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": "grpo", "task": "brief"}, "--objective grpo: has no effect without --from"),
        ({"objective": "grpo"}, "--objective grpo: expected a --task"),
        ({"task": "brief"}, "--task: has no effect with --objective auto"),
        ({"group_size": 4}, "--group-size: has no effect with --objective auto"),
    ],
    ids=str,
)
def test_what_plays_no_part_is_refused(settings: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        resolve_with_facts(settings)


def test_nobody_waits_for_a_scalar_model_to_answer(parent: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="--mode scalar: has no effect with --objective grpo"):
        tried(parent, tmp_path / "run", mode="scalar")


def test_rows_of_answers_are_not_packed(parent: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="--packing: has no effect with --objective grpo"):
        tried(parent, tmp_path / "run", packing="best-fit")


def test_by_default_it_learns_at_a_small_part_of_its_parents_rate(parent: Path, tmp_path: Path):
    settings = {name: value for name, value in TRIES.items() if name != "lr"}
    config, _ = resolve_with_facts({"start_from": str(parent), **settings})
    assert config.optimizer.lr == pytest.approx(0.03 * 4e-3)


def test_groups_that_do_not_fill_a_batch_are_refused(parent: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="--batch-size: expected a multiple of --group-size 5, received 12"):
        tried(parent, tmp_path / "run", group_size=5)


def test_a_task_without_practice_is_refused_before_anything_is_written(parent: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="--task held-out: has problems only for evaluation"):
        tried(parent, tmp_path / "run", task="held-out")
    assert not (tmp_path / "run").exists()


def test_a_tokenizer_without_the_tokens_of_chats_is_refused(start: Start, tmp_path: Path):
    run = start("characters")
    finish(run)
    with pytest.raises(UsageError, match=r"has no token <\|user_start\|>; train with --tokenizer bpe"):
        tried(run.folder.path, tmp_path / "run")


def test_the_log_is_read_back(parent: Path, tmp_path: Path):
    run = tried(parent, tmp_path / "run", steps=1)
    finish(run)
    assert [json.loads(line) for line in run.folder.log.read_text().splitlines()] == list(run.folder.records())
