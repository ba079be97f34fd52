"""Several runs at once: as many as asked for, each with its share, whatever becomes of the others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.experiments.processes import Processes, crash, stand_ins, write_result
from tests.tiny import tiny_settings
from tinygrad_chat.backend.base import Backend
from tinygrad_chat.errors import NoRoomError, UsageError
from tinygrad_chat.experiments import shares
from tinygrad_chat.experiments.ablation import Ablation, parse_variation
from tinygrad_chat.experiments.jobs import Failed, Finished, News, Running, Stopped, run_jobs
from tinygrad_chat.experiments.planned import OUTPUT, RESULT, PlannedRun, train_planned
from tinygrad_chat.experiments.report import collect, markdown
from tinygrad_chat.experiments.results import read_rows
from tinygrad_chat.experiments.running import run_ablation
from tinygrad_chat.experiments.shares import describe_shares, expect_room_for, with_threads
from tinygrad_chat.files import exclusive_lock
from tinygrad_chat.models.size import count_parameters


@pytest.fixture
def ablation(text: Path) -> Ablation:
    settings = tiny_settings(data=str(text), model="bigram", kernels="numpy")
    return Ablation(settings, parse_variation("norm=layernorm|none,tied"), seeds=1)


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Processes:
    monkeypatch.setattr(shares, "count_cores", lambda: 4)
    return stand_ins(monkeypatch)


def ends(news: Iterator[News]) -> list[News]:
    return [each for each in news if not isinstance(each, Running)]


def test_so_many_runs_are_trained_at_a_time_and_each_once(ablation: Ablation, tmp_path: Path, processes: Processes):
    news = ends(run_jobs(ablation, tmp_path, 3))
    assert processes.most_alive == 3
    assert sorted(each.run.name for each in news if isinstance(each, Finished)) == sorted(processes.names())
    assert len(set(processes.names())) == 4
    assert ends(run_jobs(ablation, tmp_path, 3)) == []  # nothing is left to do
    assert len(processes.started) == 4


@pytest.mark.parametrize(("jobs", "threads"), [(1, 4), (2, 2), (3, 1), (8, 1)])
def test_each_run_has_its_share_of_the_cores(
    ablation: Ablation, tmp_path: Path, processes: Processes, jobs: int, threads: int
):
    list(run_jobs(ablation, tmp_path, jobs))
    assert {each["threads"] for each in processes.started} == {threads}


def test_threads_that_were_chosen_stay_and_too_many_are_said(text: Path, tmp_path: Path, processes: Processes):
    ablation = Ablation(tiny_settings(data=str(text), model="bigram", threads=3), parse_variation("tied"), 1)
    said: list[str] = []
    list(run_jobs(ablation, tmp_path, 2, say=said.append))
    assert {each["threads"] for each in processes.started} == {3}
    assert said == [
        "2 runs at a time, 3 threads each: more than the 4 cores here, so each is slower; "
        "choose fewer --jobs or --threads"
    ]


def test_runs_take_the_devices_in_turn(
    ablation: Ablation, tmp_path: Path, processes: Processes, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Backend, "visible_devices", lambda self: ["2", "5"])
    said: list[str] = []
    list(run_jobs(ablation, tmp_path, 4, say=said.append))
    assert [each["device"] for each in processes.started] == ["2", "5", "2", "5"]
    assert said == ["4 runs at a time, 1 thread each, on 2 GPUs in turn"]


def test_one_that_crashes_ends_no_other_and_is_tried_again(ablation: Ablation, tmp_path: Path, processes: Processes):
    processes.behave["norm=layernorm,tied=off,seed=1"] = crash
    news = ends(run_jobs(ablation, tmp_path, 2))
    failed = [each for each in news if isinstance(each, Failed)]
    assert [(each.run.name, each.reason) for each in failed] == [
        ("norm=layernorm,tied=off,seed=1", "killed by SIGKILL"),
    ]
    assert len([each for each in news if isinstance(each, Finished)]) == 3
    cells = collect(ablation, tmp_path, [each.run for each in failed])
    assert "| layernorm | off | inf |  | inf | 0, 1 failed |  |\n" in markdown(cells)
    assert markdown(cells).count("failed") == 1
    processes.behave.clear()
    (again,) = ends(run_jobs(ablation, tmp_path, 2))
    assert (type(again), again.run.name) == (Finished, "norm=layernorm,tied=off,seed=1")


def test_a_stop_reaches_all_and_starts_no_other(ablation: Ablation, tmp_path: Path, processes: Processes):
    news = ends(run_jobs(ablation, tmp_path, 2, should_stop=lambda: len(processes.started) == 2))
    assert [type(each) for each in news] == [Stopped] * 4
    assert len(processes.started) == 2
    assert set(processes.stopped) == set(processes.names())
    assert read_rows(tmp_path) == []
    processes.stopped.clear()
    assert [type(each) for each in ends(run_jobs(ablation, tmp_path, 2))] == [Finished] * 4


def test_what_ends_the_sweep_ends_its_processes(ablation: Ablation, tmp_path: Path, processes: Processes):
    news = run_jobs(ablation, tmp_path, 2)
    next(news)
    assert len(processes.alive) == 2
    news.close()  # as an exception does, such as that of a second Ctrl-C
    assert processes.alive == set()


def test_a_text_that_has_changed_ends_the_sweep(ablation: Ablation, tmp_path: Path, processes: Processes):
    def other(path: Path) -> bool:
        write_result(path, data_sha256="1" * 64)
        return True

    processes.behave["norm=none,tied=off,seed=1"] = other
    with pytest.raises(UsageError, match="has changed since the ablation began"):
        list(run_jobs(ablation, tmp_path, 1))


def test_results_that_a_sweep_has_not_collected_are_those_of_the_next(
    ablation: Ablation, tmp_path: Path, processes: Processes
):
    write_result(tmp_path / "runs" / "norm=none,tied=on,seed=1")
    list(run_jobs(ablation, tmp_path, 1))
    assert len(processes.started) == 3
    assert len(read_rows(tmp_path)) == 4


@pytest.mark.parametrize("content", ["", "[]", '{"steps": -1}'])
def test_a_result_that_is_none_is_no_result(ablation: Ablation, tmp_path: Path, processes: Processes, content: str):
    path = tmp_path / "runs" / "norm=none,tied=on,seed=1"
    path.mkdir(parents=True)
    (path / RESULT).write_text(content)
    list(run_jobs(ablation, tmp_path, 1))
    assert path.name in processes.names()


def test_a_result_without_a_loss_is_no_result(ablation: Ablation, tmp_path: Path, processes: Processes):
    write_result(tmp_path / "runs" / "norm=none,tied=on,seed=1", val_loss=None)
    list(run_jobs(ablation, tmp_path, 1))
    assert "norm=none,tied=on,seed=1" in processes.names()


@pytest.mark.profile("ci")
def test_two_sweeps_of_one_folder_are_kept_apart(ablation: Ablation, tmp_path: Path, processes: Processes):
    news = run_jobs(ablation, tmp_path, 1)
    next(news)
    with pytest.raises(UsageError, match="is using it"):
        next(run_jobs(ablation, tmp_path, 1))
    with pytest.raises(UsageError, match="is using it"):
        next(run_ablation(ablation, tmp_path))
    news.close()


def test_a_run_that_an_older_process_still_holds_is_waited_for(
    ablation: Ablation, tmp_path: Path, processes: Processes
):
    """Where a sweep was killed, its processes may take their last step yet."""
    held = tmp_path / "runs" / "norm=layernorm,tied=on,seed=1"
    held.mkdir(parents=True)
    lock = exclusive_lock(held)
    lock.__enter__()
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if "waiting" in line:
            assert len(processes.started) == 3
            lock.__exit__(None, None, None)

    assert [type(each) for each in ends(run_jobs(ablation, tmp_path, 2, say=say))] == [Finished] * 4
    assert said[1:] == [f"{held}: another process is using it; waiting for it"]


def test_jobs_that_have_no_room_together_are_refused_in_a_line_that_says_how_many_have(
    ablation: Ablation, tmp_path: Path, processes: Processes, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shares, "_least_memory", lambda config, vocabulary: 3 << 30)
    monkeypatch.setattr(Backend, "memory_free", lambda self: 10 << 30)
    with pytest.raises(NoRoomError) as caught:
        list(run_jobs(ablation, tmp_path, 4))
    assert str(caught.value) == (
        "--jobs 4: 4 runs at once take at least 12.00 GiB, and only 10.00 GiB are available here; choose --jobs 3, "
        "a smaller --batch-size or --width"
    )
    assert processes.started == []
    list(run_jobs(ablation, tmp_path, 3))
    assert len(processes.started) == 4


def test_the_largest_runs_are_those_that_must_have_room(
    ablation: Ablation, planned: list[PlannedRun], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shares, "_least_memory", lambda config, vocabulary: (6 if config.model.tied else 1) << 30)
    monkeypatch.setattr(Backend, "memory_free", lambda self: 10 << 30)
    with pytest.raises(NoRoomError, match=r"2 runs at once take at least 12\.00 GiB.*choose --jobs 1,"):
        expect_room_for(planned, {run.name: 30 for run in planned}, 2, [])


def test_on_gpus_those_that_share_one_must_have_room_on_it(
    ablation: Ablation, processes: Processes, monkeypatch: pytest.MonkeyPatch, planned: list[PlannedRun]
):
    monkeypatch.setattr(shares, "_least_memory", lambda config, vocabulary: 3 << 30)
    monkeypatch.setattr(Backend, "memory_free", lambda self: 5 << 30)
    sizes = {run.name: 30 for run in planned}
    expect_room_for(planned, sizes, 2, ["0", "1"])
    with pytest.raises(NoRoomError, match=r"2 runs at once take .* available on each of 2 GPUs; choose --jobs 2,"):
        expect_room_for(planned, sizes, 3, ["0", "1"])


@pytest.fixture
def planned(ablation: Ablation, tmp_path: Path) -> list[PlannedRun]:
    return [
        PlannedRun(choices, ablation.config(choices, seed), tmp_path / f"{choices}")
        for choices, seed in ablation.runs()
    ]


def test_a_larger_model_and_more_threads_need_more_room(planned: list[PlannedRun], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shares, "memory_held", lambda backend: {"memory": 1000})

    def needed(**settings: Any) -> int:
        return shares._least_memory(planned[0].config.replace(**settings), 30)

    assert needed(width=800) > 10 * (needed(width=8) - needed(width=4))
    parameters = count_parameters(planned[0].config.replace(width=800).model, 30)
    assert needed(width=800, threads=3) - needed(width=800) == 2 * 4 * parameters  # two gradients more


def test_a_share_is_no_setting_of_the_ablation(
    ablation: Ablation, planned: list[PlannedRun], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shares, "count_cores", lambda: 8)
    shared = [with_threads(run, 2) for run in planned]
    assert describe_shares(shared, 2, []) == "2 runs at a time, 4 threads each"
    assert all(run.config.compute.threads is None for run in planned)
    scalar = planned[0].config.replace(mode="scalar", kernels="auto", threads=2)
    assert "threads" not in scalar.used_settings()  # and so is not asked of a run that has none


def test_a_run_that_goes_on_takes_the_threads_of_its_new_share(planned: list[PlannedRun], tmp_path: Path):
    config, path = planned[0].config, tmp_path / "run"
    list(train_planned(config.replace(threads=1), path, should_stop=lambda: True))
    threads = {run.config.compute.threads for run, _ in train_planned(config.replace(threads=2), path)}
    assert threads == {2}
    assert (path / RESULT).exists()


def test_what_a_run_has_written_outlives_its_start_anew(planned: list[PlannedRun], tmp_path: Path):
    path = tmp_path / "run"
    (path / "samples").mkdir(parents=True)
    (path / "log.jsonl").write_text('{"step": 0}\n')
    (path / OUTPUT).write_text("killed\n")
    list(train_planned(planned[0].config, path))
    assert (path / OUTPUT).read_text() == "killed\n"
    assert len((path / "log.jsonl").read_text().splitlines()) == 7
