"""The first run of `tgc chat`: asked for, watched, interrupted, gone on with; and the questions change nothing."""

from __future__ import annotations

import itertools
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.chatting import ScriptedModel, sit_at_terminal, write_presets
from tests.cli.conftest import Tgc
from tinygrad_chat.cli.chat_runs import MINUTES
from tinygrad_chat.cli.chat_training import QUESTIONS, Rehearsal
from tinygrad_chat.config.files import PRESETS
from tinygrad_chat.runs.checkpoint import find_checkpoints
from tinygrad_chat.runs.finding import RUNS
from tinygrad_chat.runs.folder import RunFolder
from tinygrad_chat.training.events import Stepped
from tinygrad_chat.training.loop import train
from tinygrad_chat.training.run import Run


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ScriptedModel:
    """What every run turns out to hold, each of which was taught to chat."""
    scripted = ScriptedModel({"hi": "Hello."})
    scripted.stand_in(monkeypatch)
    write_presets(monkeypatch, tmp_path / "presets")
    return scripted


def runs() -> list[RunFolder]:
    return [RunFolder(path) for path in sorted(RUNS.iterdir())] if RUNS.exists() else []


NO_MODEL = "tgc: there is no model to talk to yet; tgc chat --yes trains one\n"


@pytest.mark.usefixtures("model")
def test_without_a_model_a_script_is_told_how_to_get_one(tgc: Tgc):
    assert tgc("chat", "-p", "hi") == (2, "", NO_MODEL)
    assert runs() == []


@pytest.mark.usefixtures("model")
def test_yes_trains_one_and_then_answers(tgc: Tgc):
    code, out, err = tgc("chat", "--yes", "-p", "hi")
    assert (code, out) == (0, "Hello.\n")
    [run] = runs()
    assert run.path.name.startswith("chat-2")
    assert run.read_outcome()["outcome"] == "finished"
    assert all(err.count(f"\n  {question}") == 2 for question in QUESTIONS)  # after the first step, and at the end
    assert tgc("chat", "-p", "hi") == (0, "Hello.\n", "")


@pytest.mark.usefixtures("model")
def test_a_person_is_asked_and_then_talks(tgc: Tgc, monkeypatch: pytest.MonkeyPatch):
    prompts = sit_at_terminal(monkeypatch, ["n"])
    assert tgc("chat")[0] == 2
    assert runs() == []
    prompts = sit_at_terminal(monkeypatch, ["", "hi"])
    code, out, err = tgc("chat")
    assert (code, out.split()[-1]) == (0, "Hello.")
    assert (
        "There is no model to talk to yet. Train one now (about 12 minutes on two cores, nothing to download)? [Y/n] "
        in err
    )
    assert len(prompts) == 3


@pytest.mark.profile("ci")
@pytest.mark.usefixtures("model")
def test_another_size_is_a_model_of_its_own(tgc: Tgc):
    assert tgc("chat", "--yes", "-p", "hi", "--config", "small")[0] == 0
    assert tgc("chat", "-p", "hi", "--config", "standard") == (2, "", NO_MODEL)
    assert tgc("chat", "--yes", "-p", "hi", "--config", "standard")[0] == 0
    assert sorted(run.read_config().model.layers for run in runs()) == [1, 3]
    assert tgc("chat", "-p", "hi", "--config", "small")[:2] == (0, "Hello.\n")
    assert len(runs()) == 2


@pytest.mark.profile("ci")
@pytest.mark.usefixtures("model")
def test_an_interrupted_training_is_gone_on_with_or_talked_to(tgc: Tgc, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        asked = itertools.count()

        def interrupt(self: Rehearsal, event: Any) -> None:
            if isinstance(event, Stepped) and next(asked) == 3:
                signal.raise_signal(signal.SIGINT)

        patch.setattr(Rehearsal, "watch", interrupt)
        code, out, err = tgc("chat", "--yes", "-p", "hi")
    assert (code, out) == (130, "")
    assert err.endswith("everything is saved; tgc chat continues the training or talks to the model as it is\n")
    [run] = runs()
    name = f"The training of {run.path} was stopped at step 4."
    code, out, err = tgc("chat", "-p", "hi")
    assert (code, out) == (0, "Hello.\n")
    assert err == f"tgc: the training of {run.path} was stopped at step 4; tgc chat --yes continues it\n"
    with monkeypatch.context() as patch:
        sit_at_terminal(patch, ["n", "hi"])
        code, out, err = tgc("chat")
        assert (code, out.split()[-1]) == (0, "Hello.")
        assert f"{name} Continue it? No: talk to the model as it is. [Y/n] " in err
        assert not run.outcome_is("finished")
        sit_at_terminal(patch, ["y", "hi"])
        assert tgc("chat")[0] == 0
    assert run.outcome_is("finished")
    assert [json.loads(line)["step"] for line in run.log.read_text().splitlines()] == list(range(7))
    assert len(runs()) == 1


@pytest.mark.usefixtures("model")
def test_a_run_that_cannot_be_read_is_passed_over(tgc: Tgc):
    assert tgc("chat", "--yes", "-p", "hi")[0] == 0
    (RUNS / "zz" / "checkpoints" / "step-000009").mkdir(parents=True)
    (RUNS / "zz" / "config.toml").write_text("nonsense =")
    assert tgc("chat", "-p", "hi") == (0, "Hello.\n", "")


@pytest.mark.profile("ci")
def test_asking_changes_no_line_of_the_log(start: Callable[..., Run], monkeypatch: pytest.MonkeyPatch):
    settings = {"tokenizer": "bpe", "vocabulary": 266, "context": 64, "dropout": 0.1, "steps": 6}
    logs = []
    for asks in (False, True):
        run, said = start(f"asks {asks}", **settings), list[str]()
        rehearsal = Rehearsal(
            run, lambda text, style="", said=said: said.append(text), clock=itertools.count(0, 40).__next__
        )
        for event in train(run):
            if asks:
                rehearsal.watch(event)
        assert sum(text.startswith(f"  {QUESTIONS[0]}") for text in said) == 6 * asks
        logs.append(
            [
                run.folder.log.read_bytes(),
                find_checkpoints(run.folder.checkpoints)[-1].joinpath("weights.safetensors").read_bytes(),
            ]
        )
    assert logs[0] == logs[1]


def test_the_questions_come_by_the_clock(start: Callable[..., Run]):
    now, said = 0.0, list[float]()
    run = start(tokenizer="bpe", vocabulary=266, context=64)
    rehearsal = Rehearsal(run, lambda text, style="": said.append(now), clock=lambda: now)
    for step in range(1, 200):
        rehearsal.watch(Stepped(step, 1.0, step / 200))
        now += 1.0
    assert sorted(set(said)) == [0.0, 30.0, 60.0, 90.0, 120.0, 150.0, 180.0]


def test_a_model_whose_numbers_went_astray_is_not_asked(start: Callable[..., Run]):
    run, said = start(tokenizer="bpe", vocabulary=266, context=64), list[str]()
    run.model.parameters().data[...] = float("nan")
    Rehearsal(run, lambda text, style="": said.append(text)).watch(Stepped(1, 1.0, 0.5))
    assert said == []


@pytest.mark.parametrize(
    ("minutes", "words"), {12: "twelve minutes", 4: "four minutes", 20: "twenty minutes", 60: "an hour"}.items()
)
def test_what_the_offer_says_of_the_time_its_preset_says_too(minutes: int, words: str):
    [name] = [name for name, about in MINUTES.items() if about == minutes]
    assert f"about {words} on two cores" in (PRESETS / f"{name}.toml").read_text().splitlines()[0]
