"""`tgc eval` and `tgc sample` by several processes: what one process says, and one line where a rank is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_ranks import QUICK, TGC, Started
from tests.profiles import CI, DEEP
from tinygrad_chat.cli.app import run as run_tgc

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="ranks are started with mpiexec as it is on Linux and macOS"),
    CI,
]
pytest.importorskip("mpi4py", reason="needs the extra mpi")

MPIEXEC = [str(Path(sys.executable).parent / "mpiexec"), "-n", "2"]
CHAT = ["--tokenizer", "bpe", "--vocabulary", "266", "--layers", "1", "--heads", "2", "--width", "8", "--context", "64"]
TASK = """
from pathlib import Path
import time
from tinygrad_chat.tasks import Problem
from tinygrad_chat.text.conversations import Conversation

class {name}:
    name, about, chance = "{name}", "what a test asks", 0.0

    def problems(self, count, seed):
        for number in range(count):
            yield Problem(Conversation.of(f"{{number}}?"), str(number), {check}, {choices})
"""
WRITTEN = TASK.format(name="written", check="'i'.__le__", choices="()")
CHOSEN = TASK.format(name="chosen", check="'1'.__eq__", choices="('1', '23') if number % 2 else ()")
SLOW = TASK.format(name="slow", check="lambda answer: Path('begun').touch() or time.sleep(0.3)", choices="('1', '23')")


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that was taught to chat, and tasks to ask it."""
    folder = tmp_path_factory.mktemp("chat")
    said = [[("user", f"{number}?"), ("assistant", f"It is {number}.")] for number in range(99)]
    lines = [json.dumps({"messages": [{"role": role, "content": text} for role, text in each]}) for each in said]
    (folder / "chats.jsonl").write_text("".join(f"{line}\n" for line in lines))
    for name, text in (("written.py", WRITTEN), ("chosen.py", CHOSEN), ("slow.py", SLOW)):
        (folder / name).write_text(text)
    arguments = ["--data", "chats.jsonl", *CHAT, "--steps", "20", "--lr", "0.05", "--batch-size", "4"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run_tgc(["train", *arguments, "--out", "run", "--quiet"]) == 0
    return folder


@pytest.fixture
def tgc(chat: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Started]]:
    """Start a command where the run is."""
    monkeypatch.chdir(chat)
    started: list[Started] = []

    def start(*arguments: object, **options: Any) -> Started:
        started.append(Started(*arguments, *QUICK, command=(), **options))
        return started[-1]

    yield start
    for each in started:
        each.kill()
    (chat / "begun").unlink(missing_ok=True)


def said(*words: str) -> str:
    """What a command says on standard output, and nothing elsewhere."""
    done = subprocess.run([*words, *QUICK], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def report_of(text: str) -> dict[str, Any]:
    """A report without how long it took."""
    report = json.loads(text)
    for each in [*report["evaluations"], *report["tasks"]]:
        del each["seconds"]
        each.pop("tokens_per_second", None)
    return report


def test_a_report_of_ranks_is_that_of_one_process(tgc: Callable[..., Started], chat: Path):
    task = ["eval", "run", "--json", "--problems", "9", "--task", "written.py", "--task", "chosen.py"]
    assert report_of(said(*TGC, *task, "--ranks", "3")) == report_of(said(*TGC, *task))
    kept = json.loads((chat / "run" / "evaluation.json").read_text())
    assert "written" in str(kept)


def test_a_loss_of_ranks_is_that_of_one_process(tgc: Callable[..., Started]):
    text = ["eval", "run", "--json", "--data", "chats.jsonl"]
    [shared], [alone] = (report_of(said(*each))["evaluations"] for each in ([*MPIEXEC, *TGC, *text], [*TGC, *text]))
    assert shared == {key: pytest.approx(each) if isinstance(each, float) else each for key, each in alone.items()}


def test_samples_of_ranks_are_those_of_one_process(tgc: Callable[..., Started]):
    sample = [
        "sample",
        "--checkpoint",
        "run",
        "--prompt",
        "",
        "--num-samples",
        "5",
        "--seed",
        "3",
        "--max-new-tokens",
        "20",
    ]
    alone = said(*TGC, *sample)
    assert alone.count("--- sample") == 4
    assert said(*TGC, *sample, "--ranks", "2") == alone


def test_a_mistake_is_said_once(tgc: Callable[..., Started]):
    code, error = tgc("eval", "run", "--task", "none", "--ranks", 2).end()
    assert (code, error.count("\n")) == (2, 1)
    assert error.startswith("tgc: --task none: ")


def test_what_is_wrong_with_one_of_several_runs_leaves_the_ranks_to_the_others(tgc: Callable[..., Started]):
    started = tgc("eval", "none", "run", "--task", "chosen.py", "--json", "--problems", 4, "--ranks", 2)
    report = json.loads(started.process.communicate()[0])
    assert started.process.returncode == 2
    assert [each["run"] for each in report["failed"]] == ["none"]
    assert [each["count"] for each in report["tasks"]] == [4]


def wait_until_begun(folder: Path) -> None:
    """Wait until rank 0 checks answers, for minutes, and asks the others nothing."""
    while not (folder / "begun").exists():
        time.sleep(0.02)


@pytest.mark.parametrize("victim", [pytest.param(0, marks=DEEP), 1])
def test_a_rank_that_is_killed_ends_all_with_one_line(tgc: Callable[..., Started], chat: Path, victim: int):
    started = tgc("eval", "run", "--task", "slow.py", "--problems", 600, "--ranks", 2)
    ranks = started.ranks(2)
    wait_until_begun(chat)
    ranks[victim].kill()
    code, error = started.end()
    assert (code, error.count("\n")) == (3, 1), error
    if victim:
        assert error.startswith(f"tgc: rank 1 (process {ranks[1].pid} on ")
    else:
        assert error.startswith("tgc: rank 0 has ended")
        assert error.endswith("; start it again\n")


@pytest.mark.parametrize("to", [pytest.param(None, marks=DEEP), 1])
def test_a_signal_to_any_rank_ends_all(tgc: Callable[..., Started], chat: Path, to: int | None):
    started = tgc("eval", "run", "--task", "slow.py", "--problems", 600, "--ranks", 2)
    ranks = started.ranks(2)
    wait_until_begun(chat)
    os.kill(started.process.pid if to is None else ranks[to].pid, signal.SIGTERM)
    assert started.end() == (143, "tgc: interrupted by SIGTERM\n")


def test_a_reader_that_has_gone_ends_all_ranks(tgc: Callable[..., Started]):
    started = tgc("sample", "--checkpoint", "run", "--prompt", "", "--num-samples", 1000, "--seed", 1, "--ranks", 2)
    assert started.process.stdout is not None
    started.process.stdout.readline()
    started.process.stdout.close()
    started.process.stdout = None
    assert started.end() == (128 + 13, "")
