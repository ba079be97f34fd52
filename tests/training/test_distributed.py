"""A run that several ranks share, here threads of this process: the same run, whatever their number."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.test_catalogue import KERNEL_SETS
from tests.tiny import tiny_settings
from tests.training.test_loop import Start, finish, log
from tests.training.test_reinforcement import TRIES, Brief
from tests.training.test_rollbacks_and_death import DIVERGING
from tinygrad_chat.errors import DivergedError, UsageError
from tinygrad_chat.parallel import FAREWELL, Communicator, ThreadTeam
from tinygrad_chat.parallel.threads import _Member
from tinygrad_chat.runs.checkpoint import find_checkpoints
from tinygrad_chat.runs.state import TrainingState
from tinygrad_chat.training.distributed import DistributedStep, follow
from tinygrad_chat.training.facts import resolve_with_facts
from tinygrad_chat.training.run import Run, resume_run, start_run

TEXT = "the quick brown fox jumps over the lazy dog, and the dog sleeps on\n" * 40
RECIPES: list[dict[str, Any]] = [
    {},
    {"optimizer": "sgd", "model": "bigram", "clip": 0.1},
    {"optimizer": "muon", "dropout": 0.2, "positions": "rotary"},
    {"model": "nanochat", "depth": 1, "width": 16, "heads": 2, "grad_accumulation": 2},
    {"grad_accumulation": 3, "tokenizer": "bytes", "skip_spikes": 0.5, "recompute": True},
    {"mode": "scalar", "width": 4, "context": 4, "eval_tokens": 9, "steps": 3},
]

Share = Callable[..., Run]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def on(ranks: int, lead: Callable[[Communicator | None], Run]) -> Run:
    """Let rank 0 make a run and train it, and the others take part; one rank is a run as ever."""
    if ranks == 1:
        run = lead(None)
        finish(run)
        return run

    def work(communicator: Communicator) -> Run | None:
        if communicator.rank:
            follow(communicator)
            return None
        run = lead(communicator)
        finish(run)
        communicator.broadcast_object(FAREWELL)
        return run

    run = ThreadTeam(ranks).run(work)[0]
    assert run is not None
    return run


@pytest.fixture
def share(text: Path, tmp_path: Path) -> Share:
    """Train a tiny run by so many ranks, in a folder of that name."""

    def train(ranks: int, name: str, **settings: Any) -> Run:
        def lead(communicator: Communicator | None) -> Run:
            config, data = resolve_with_facts(tiny_settings(data=str(text), batch_size=6, **settings))
            return start_run(config, tmp_path / name, data=data, communicator=communicator, confirmed=True)

        return on(ranks, lead)

    return train


def resumed(ranks: int, path: Path, **changes: Any) -> Run:
    return on(ranks, lambda communicator: resume_run(path, changes, communicator=communicator, confirmed=True))


def losses(run: Run) -> np.ndarray:
    return np.array(
        [record[name] for record in log(run) for name in ("loss", "val_loss", "grad_norm") if name in record]
    )


@pytest.mark.profile("ci")
@pytest.mark.parametrize("overlaps", [False, True])
@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_ranks_change_a_run_by_rounding_only(
    share: Share, monkeypatch: pytest.MonkeyPatch, recipe: dict[str, Any], overlaps: bool
):
    monkeypatch.setattr(_Member, "overlaps", overlaps)
    alone, *shared = (share(ranks, f"{ranks} ranks", **{"steps": 12, **recipe}) for ranks in (1, 2, 4))
    for run in shared:
        assert isinstance(run.train_step, DistributedStep)
        assert (run.train_step.rank.buckets is not None) == (overlaps and recipe.get("mode") != "scalar")
        np.testing.assert_allclose(losses(run), losses(alone), rtol=2e-4)


@pytest.mark.profile("ci")
def test_hundred_steps_of_threads_and_ranks_have_the_losses_of_one(share: Share):
    alone, *shared = (
        share(ranks, f"{ranks} x {threads}", steps=100, threads=threads, eval_every=50)
        for ranks, threads in ((1, 1), (2, 1), (4, 1), (2, 2))
    )
    for run in shared:
        np.testing.assert_allclose(losses(run), losses(alone), rtol=1e-3)


@pytest.mark.profile("ci")
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_with_the_same_number_of_ranks_a_run_leaves_the_same_bytes_again(share: Share, optimizer: str):
    once, again = (share(3, name, optimizer=optimizer, dropout=0.1) for name in ("once", "again"))
    assert once.folder.log.read_bytes() == again.folder.log.read_bytes()
    for first, second in zip(*(find_checkpoints(run.folder.checkpoints) for run in (once, again)), strict=True):
        arrays = [sorted(path.glob("*.safetensors")) for path in (first, second)]
        assert [path.read_bytes() for path in arrays[0]] == [path.read_bytes() for path in arrays[1]] != []


@pytest.mark.profile("ci")
@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
def test_a_run_saved_by_four_ranks_goes_on_with_any_number_as_if_never_stopped(
    share: Share, tmp_path: Path, optimizer: str
):
    settings = {"steps": 12, "eval_every": 6, "optimizer": optimizer}
    whole = share(4, "whole", **settings)
    for ranks in (1, 3, 4, 6):
        path = tmp_path / f"on {ranks}"
        shutil.copytree(whole.folder.path, path)
        for checkpoint in find_checkpoints(path / "checkpoints")[2:]:
            shutil.rmtree(checkpoint)
        run = resumed(ranks, path)
        assert run.progress.step == 12
        np.testing.assert_allclose(losses(run), losses(whole), rtol=2e-4)
        if ranks == 4:
            assert run.folder.log.read_bytes() == whole.folder.log.read_bytes()


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
def test_a_checkpoint_of_ranks_holds_what_one_process_saves(share: Share, optimizer: str):
    alone, shared = (
        TrainingState.load(find_checkpoints(share(ranks, f"{ranks}", optimizer=optimizer).folder.checkpoints)[-1])
        for ranks in (1, 4)
    )
    for before, after in ((alone.weights, shared.weights), (alone.optimizer, shared.optimizer)):
        assert before.keys() == after.keys()
        for name, array in before.items():
            np.testing.assert_allclose(after[name], array, rtol=1e-3, atol=1e-6, err_msg=name)


@pytest.mark.profile("ci")
def test_adapters_learn_beside_frozen_weights_that_all_ranks_have(share: Share, tmp_path: Path):
    parent = share(1, "parent")

    def lead(communicator: Communicator | None) -> Run:
        settings = {"start_from": str(parent.folder.path), "lora": 2, "steps": 6, "seed": 7, "log_every": 1}
        config, data = resolve_with_facts(settings)
        return start_run(config, tmp_path / f"lora {communicator is None}", data=data, communicator=communicator)

    np.testing.assert_allclose(losses(on(2, lead)), losses(on(1, lead)), rtol=1e-4)


@pytest.mark.profile("ci")
@pytest.mark.parametrize("kernels", KERNEL_SETS)
def test_a_rollback_takes_all_ranks_back(share: Share, monkeypatch: pytest.MonkeyPatch, kernels: str):
    monkeypatch.setattr("tinygrad_chat.runs.recent_losses.WINDOW", 3)
    settings = {"steps": 20, "checkpoint_every": 2, "eval_every": 10, "warmup": 0, "on_nan": "rollback"}
    settings["kernels"] = kernels
    with pytest.raises(DivergedError, match="step") as alone:
        share(1, "alone", **settings, **DIVERGING["fails for good"])
    with pytest.raises(DivergedError, match="step") as shared:
        share(2, "shared", **settings, **DIVERGING["fails for good"])
    assert str(shared.value).split(":")[0] == str(alone.value).split(":")[0]


@pytest.mark.profile("ci")
def test_ranks_share_the_answers_that_a_run_learns_from(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tinygrad_chat.training.reinforcement.open_task", lambda name: Brief())
    parent = start("parent", tokenizer="bpe", vocabulary=265, context=24)

    def lead(communicator: Communicator | None) -> Run:
        settings = {**TRIES, "start_from": str(parent.folder.path), "steps": 3, "eval_every": 3, "log_every": 1}
        config, data = resolve_with_facts(settings)
        return start_run(config, tmp_path / f"alone {communicator is None}", data=data, communicator=communicator)

    finish(parent)
    alone, shared = on(1, lead), on(3, lead)
    assert [record.get("reward") for record in log(shared)] == [record.get("reward") for record in log(alone)]
    np.testing.assert_allclose(losses(shared), losses(alone), rtol=1e-3)


def test_more_ranks_than_rows_are_refused(share: Share):
    with pytest.raises(UsageError, match="7 ranks: expected a --batch-size of at least one row per rank, received 6"):
        share(7, "too many")


@pytest.mark.profile("ci")
def test_the_environment_of_a_run_says_how_many_ranks_it_had(share: Share):
    assert [list(share(ranks, f"{ranks}").folder.environments())[-1].get("ranks") for ranks in (1, 2)] == [None, 2]
