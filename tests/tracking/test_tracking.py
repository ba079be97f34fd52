"""Trackers: each gets every line of the log once, and none can end a run."""

from __future__ import annotations

import importlib
import json
import sys
import types
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tinygrad_chat.config.record import SPECS
from tinygrad_chat.errors import BackendError, DivergedError
from tinygrad_chat.files import CACHE_VARIABLE
from tinygrad_chat.tracking.opening import TRACKERS, expect_tracker, open_tracker
from tinygrad_chat.tracking.sending import tracking
from tinygrad_chat.tracking.tracker import RevisableTracker, Tracker
from tinygrad_chat.training.events import Logged, RolledBack
from tinygrad_chat.training.loop import train
from tinygrad_chat.training.run import Run, resume_run

Start = Callable[..., Run]


class Library:
    """Stands in for wandb and for trackio: remembers what it was told, and fails where it is told to."""

    def __init__(self) -> None:
        self.started: list[dict[str, Any]] = []
        self.rows: list[tuple[int, dict[str, Any]]] = []
        self.finished: list[int] = []
        self.fail_at: int | None = None
        self.last_step = -1
        self.offline = False
        self.url = "https://example.org/run"
        self.module = types.ModuleType("stand_in")
        self.module.__dict__.update(
            init=self.init, finish=self.finish, Settings=dict, Html=lambda text, inject: text, Markdown=str
        )

    @property
    def starting_step(self) -> int:
        return self.last_step + 1

    def init(self, **options: Any) -> Library:
        print("a banner")
        self.started.append(options)
        return self

    def log(self, values: Mapping[str, Any], step: int) -> None:
        if self.fail_at is not None and step >= self.fail_at:
            raise ConnectionError("the network\nis gone")
        self.rows.append((step, dict(values)))

    def finish(self, exit_code: int = 0) -> None:
        self.last_step = max(step for step, _ in self.rows)
        self.finished.append(exit_code)

    def steps(self, name: str) -> list[int]:
        return [step for step, values in self.rows if name in values]


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    library = Library()
    for name in ("wandb", "trackio"):
        monkeypatch.setitem(sys.modules, name, library.module)
    return library


def finish(run: Run, *, stop_after: int | None = None, abandon_at: int | None = None) -> list[str]:
    """Train to the end, stop after a step, or drop everything there as a killed process does; return what was said."""
    said: list[str] = []
    with tracking(run, said.append) as send:
        for event in train(run, should_stop=lambda: run.progress.step == stop_after):
            send(event)
            if isinstance(event, Logged) and event.record["step"] == abandon_at:
                break
    return said


ONLINE = pytest.mark.parametrize("name", ["trackio", "wandb"])


@ONLINE
def test_a_tracker_gets_each_line_of_the_log_with_its_timing_and_each_sample(
    start: Start, library: Library, name: str, capsys: pytest.CaptureFixture[str]
):
    run = start(track=name)
    (said,) = finish(run)
    assert said.startswith("tracker: ")
    lines = [{**record, **timing} for record, timing in zip(run.folder.records(), run.folder.timings(), strict=True)]
    numbers = [(step, values) for step, values in library.rows if "sample" not in values]
    assert [{"step": step, **values} for step, values in numbers] == [
        {key: value for key, value in line.items() if isinstance(value, int | float)} for line in lines
    ]
    assert library.steps("sample") == library.steps("val_loss") == [0, 3, 6]
    assert library.finished == [0]
    (options,) = library.started
    assert options["project"] == "tinygrad_chat"
    assert options["config"]["width"] == run.config.model.width
    assert name == "wandb" or capsys.readouterr().out == ""


@ONLINE
@pytest.mark.parametrize("ending", ["stop_after", "abandon_at"])
def test_a_resumed_run_stays_the_same_run_and_doubles_no_point(start: Start, library: Library, name: str, ending: str):
    run = start(track=name)
    finish(run, **{ending: 5})
    finish(resume_run(run.folder.path, {"steps": 8}))
    identities = [options["id" if name == "wandb" else "name"] for options in library.started]
    assert len(set(identities)) == 1
    assert [options["resume"] for options in library.started] == ["allow"] * 2
    assert library.steps("loss") == list(range(8))
    assert max(Counter(library.steps("sample")).values()) == 1
    assert set(library.steps("sample")) == {0, 3, 6, 8}


@ONLINE
def test_after_a_rollback_no_point_comes_twice(
    start: Start, library: Library, name: str, monkeypatch: pytest.MonkeyPatch
):
    from tinygrad_chat.training import loop

    original, failures = loop.update, [5]

    def failing(run: Run, fraction_used: float) -> dict[str, float]:
        if failures and run.progress.step == failures[0]:
            failures.pop()
            raise DivergedError("the loss is nan")
        return original(run, fraction_used)

    monkeypatch.setattr(loop, "update", failing)
    finish(start(track=name, on_nan="rollback"))
    assert library.steps("loss") == list(range(6))


@ONLINE
@pytest.mark.parametrize("fail_at", [0, 4])
def test_a_tracker_that_fails_is_named_once_and_training_goes_on(
    start: Start, library: Library, name: str, fail_at: int
):
    library.fail_at = fail_at
    run = start(track=name)
    said = finish(run)
    assert said[1:] == [f"--track {name}: the network is gone; training continues without it"]
    assert run.progress.step == 6
    assert library.finished == []


@pytest.mark.profile("ci")
@ONLINE
def test_a_tracker_that_cannot_be_opened_or_closed_does_not_end_a_run(
    start: Start, library: Library, name: str, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(Library, "finish", refuse)
    monkeypatch.setitem(library.module.__dict__, "finish", refuse)
    assert finish(start("a", track=name))[1:] == [f"--track {name}: RuntimeError; training continues without it"]
    monkeypatch.setitem(library.module.__dict__, "init", refuse)
    run = start("b", track=name)
    assert finish(run) == [f"--track {name}: RuntimeError; training continues without it"]
    assert run.progress.step == 6


def test_a_run_that_fails_is_closed_as_failed(start: Start, library: Library):
    with pytest.raises(DivergedError):
        finish(start(track="wandb", optimizer="sgd", lr=1e30, clip=0.0, warmup=0))
    assert library.finished == [1]


@pytest.mark.parametrize("name", TRACKERS)
def test_a_library_that_is_not_there_is_named_before_anything_starts(
    start: Start, monkeypatch: pytest.MonkeyPatch, name: str
):
    monkeypatch.setitem(sys.modules, TRACKERS[name].library, None)
    message = rf"--track {name}: needs {TRACKERS[name].library}, .* pip install {TRACKERS[name].library}$"
    with pytest.raises(BackendError, match=message):
        expect_tracker(name)
    run = start(track=name)
    with pytest.raises(BackendError), tracking(run):
        pytest.fail("training began")


def test_no_tracker_is_opened_where_none_is_wanted(start: Start):
    expect_tracker(None)
    run = start()
    assert finish(run) == []
    assert not (run.folder.path / "tracker.json").exists()


def test_every_tracker_that_can_be_chosen_is_there():
    assert sorted(TRACKERS) == sorted(SPECS["track"].choices)


@pytest.mark.parametrize(
    ("kind", "forgotten"),
    [*((Tracker, name) for name in ("__init__", "log", "show_text", "close")), (RevisableTracker, "take_back")],
)
def test_a_tracker_that_forgets_a_part_cannot_be_opened(kind: type[Tracker], forgotten: str):
    parts = {name: lambda *_, **__: None for name in ("__init__", "log", "show_text", "take_back", "close")}
    whole = type("Whole", (kind,), dict(parts))
    assert isinstance(whole(None, None), kind)  # pyright: ignore[reportArgumentType]
    del parts[forgotten]
    with pytest.raises(TypeError, match=f"abstract method {forgotten}"):
        type("Forgetful", (kind,), parts)(None, None)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("tracker", TRACKERS.values())
def test_points_are_taken_back_by_those_that_can_and_asked_of_no_other(tracker: type[Tracker]):
    assert issubclass(tracker, RevisableTracker) == hasattr(tracker, "take_back") == (tracker.library == "tensorboardX")


def read_events(folder: Path) -> tuple[dict[str, dict[int, float]], dict[int, str]]:
    """Read TensorBoard's event files as TensorBoard does: numbers by name and step, and samples by step."""
    proto = pytest.importorskip("tensorboardX.proto.event_pb2")

    numbers: dict[str, dict[int, float]] = {}
    samples: dict[int, str] = {}
    for file in sorted(folder.iterdir()):
        content, position = file.read_bytes(), 0
        while position < len(content):
            length = int.from_bytes(content[position : position + 8], "little")
            event = proto.Event.FromString(content[position + 12 : position + 12 + length])
            position += 16 + length
            if event.session_log.status == proto.SessionLog.START:
                for name, values in numbers.items():
                    numbers[name] = {step: value for step, value in values.items() if step < event.step}
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    assert event.step not in numbers.setdefault(value.tag, {}), f"{value.tag} twice at {event.step}"
                    numbers[value.tag][event.step] = value.simple_value
                elif value.tag.startswith("sample"):
                    assert event.step not in samples
                    samples[event.step] = value.tensor.string_val[0].decode()
    return numbers, samples


@pytest.mark.parametrize("ending", [{}, {"stop_after": 4}, {"abandon_at": 5}])
def test_tensorboard_shows_the_log_with_no_point_twice_even_after_a_resume(start: Start, ending: dict[str, int]):
    pytest.importorskip("tensorboardX")
    run = start(track="tensorboard")
    finish(run, **ending)
    if ending:
        run = resume_run(run.folder.path, {})
        finish(run)
    numbers, samples = read_events(run.folder.path / "tensorboard")
    for name in ("loss", "val_loss", "val_bpb", "lr", "grad_norm"):
        wanted = {record["step"]: record[name] for record in run.folder.records() if name in record}
        assert numbers[name] == pytest.approx(wanted)
    assert numbers["seconds"].keys() == {timing["step"] for timing in run.folder.timings()}
    text = (run.folder.samples / "step-000006.txt").read_text(encoding="utf-8")
    assert samples.keys() >= {0, 3, 6}
    assert [line[4:] for line in samples[6].splitlines()] == text.splitlines()


def test_tensorboard_takes_back_what_a_rollback_does_again(start: Start):
    pytest.importorskip("tensorboardX")
    run = start(track="tensorboard")
    said: list[str] = []
    with tracking(run, said.append) as send:
        for step, loss in enumerate([4.0, 3.0, 9.0]):
            send(Logged({"step": step, "loss": loss}, {"step": step}))
        send(RolledBack(1, 3, "the loss is nan"))
        send(Logged({"step": 1, "loss": 2.5}, {"step": 1}))
    assert read_events(run.folder.path / "tensorboard")[0]["loss"] == {0: 4.0, 1: 2.5}
    assert len(said) == 1


def test_an_unreadable_identity_makes_a_new_one(start: Start, library: Library):
    run = start(track="wandb")
    (run.folder.path / "tracker.json").write_text("[")
    open_tracker("wandb", run)
    open_tracker("wandb", run)
    first, second = library.started
    assert first["id"] == second["id"] != ""


# --- whose wish it is


def received(run: Run, path: Path) -> Run:
    """Return a run as somebody else would go on with it, who was sent its folder."""
    return resume_run(run.folder.path.rename(path), {})


@pytest.mark.parametrize("name", TRACKERS)
def test_a_run_from_elsewhere_starts_no_tracker_and_imports_none(
    start: Start, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    run = start()
    finish(run, stop_after=4)
    changed = resume_run(run.folder.path, {"track": name})
    changed.folder.write_config(changed.config)
    changed.state().save(changed.folder.checkpoints)
    (run.folder.path / "tracker.json").write_text(json.dumps({name: "of somebody else"}))
    imported: list[str] = []
    original = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", lambda module: imported.append(module) or original(module))
    run = received(run, tmp_path / "received")
    assert run.config.run.track == name
    assert finish(run) == [
        f"not logging to {name}, as this run never did so from this machine; to log to it, add --track {name}"
    ]
    assert [module for module in imported if not module.startswith("tinygrad_chat.")] == []
    assert run.folder.outcome_is("finished")


@ONLINE
def test_a_tracker_is_asked_for_once_wherever_the_run_goes_on(
    start: Start, library: Library, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = start(track=name)
    finish(run, stop_after=1)
    library.started.clear()
    run = received(run, tmp_path / "moved")
    finish(run, stop_after=2)
    assert library.started == []
    run = resume_run(run.folder.path, {"track": name})
    with tracking(run, asked_for=True) as send:
        for event in train(run, should_stop=lambda: run.progress.step == 3):
            send(event)
    finish(resume_run(run.folder.path, {}), stop_after=4)
    assert len(library.started) == 2
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache of another machine"))
    finish(resume_run(run.folder.path, {}))
    assert len(library.started) == 2


def test_a_cache_that_cannot_be_written_keeps_no_tracker_from_a_run(start: Start, library: Library, cache: Path):
    cache.rmdir()
    cache.write_text("no folder")
    run = start(track="wandb")
    assert len(finish(run)) == 1
    assert library.finished == [0]
