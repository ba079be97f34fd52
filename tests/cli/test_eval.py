"""`tgc eval`: a table for people, an object for programs."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import TINY_BIGRAM, Tgc
from tests.runs.test_hostile_checkpoints import resign
from tinygrad_chat.cli.app import run
from tinygrad_chat.tasks import TASKS
from tinygrad_chat.text.standard_input import keep_standard_input


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs that have different tokenizers."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("abc.txt").write_text("abc dba\n" * 60)
        for tokenizer in ("characters", "bytes"):
            made = ("--data", "abc.txt", "--tokenizer", tokenizer, "--out", f"runs/{tokenizer}")
            assert run(["train", *TINY_BIGRAM, *made]) == 0
    return folder


@pytest.fixture(autouse=True)
def runs(tgc: Tgc, trained: Path) -> None:
    """A copy of them in the working folder."""
    shutil.copytree(trained, ".", dirs_exist_ok=True)


def test_two_tokenizers_stand_in_one_table_over_the_same_bytes(tgc: Tgc):
    Path("other.txt").write_text("abba dcc\n" * 9)
    code, text, said = tgc("eval", "characters", "runs/bytes", "--data", "other.txt")
    assert (code, said) == (0, "")
    head, *rows = text.splitlines()
    assert head.split()[:4] == ["run", "bits/byte", "text", "bytes"]
    assert [row.split()[0] for row in rows] == ["characters", "runs/bytes"]
    assert {row.split()[3] for row in rows} == {"81"}


def test_programs_get_one_object(tgc: Tgc):
    code, text, _ = tgc("eval", "--json", "--max-bytes", "20")
    [found] = json.loads(text)["evaluations"]
    assert code == 0
    assert (found["bytes"], found["source"]) == (19, "abc.txt")  # the first is no target
    assert found["bits_per_byte"] == pytest.approx(found["loss"] * found["tokens"] / 19 * 1.442695, rel=1e-4)


def test_a_text_is_taken_from_a_pipe_once_for_all_runs(tgc: Tgc, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"abba dcc\n" * 9)))
    keep_standard_input.cache_clear()
    code, text, said = tgc("eval", "characters", "bytes", "--data", "-")
    keep_standard_input.cache_clear()
    assert (code, said) == (0, "")
    assert [row.split()[3] for row in text.splitlines()[1:]] == ["81", "81"]


def test_what_is_left_out_of_a_text_is_said_once(tgc: Tgc):
    Path("folder").mkdir()
    Path("folder/a.txt").write_text("abba dcc\n" * 9)
    Path("folder/b.png").write_bytes(b"\x89PNG\0")
    code, _, said = tgc("eval", "characters", "bytes", "--data", "folder")
    assert (code, said) == (0, "tgc: folder: left out 1 .png (no text)\n")


@pytest.mark.profile("ci")
def test_a_text_that_a_tokenizer_lacks_is_one_line_that_names_the_run(tgc: Tgc):
    Path("other.txt").write_text("abba é\n")
    code, _, said = tgc("eval", "bytes", "characters", "--data", "other.txt")
    assert code == 2
    assert said.startswith("tgc: characters: character 'é' (U+00E9) at offset 5 is not among the 6 characters")
    assert said.count("\n") == 1


@pytest.mark.profile("ci")
def test_a_run_whose_text_is_gone_says_so_and_what_to_do(tgc: Tgc):
    Path("abc.txt").unlink()
    code, _, said = tgc("eval", "bytes")
    assert code == 2
    assert said.startswith("tgc: bytes: --data abc.txt: no such file or folder")
    assert said.endswith("; or name another text with --data\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--encoding", "latin-1"), "--encoding: has no effect without --data"),
        (("nowhere",), "nowhere: no such file or folder; tgc runs lists the runs"),
        (("characters", "--data", "upper.txt"), "characters: character 'A'"),
        (("--task", "sum"), "--task sum: expected one of "),
        (("--task", "nowhere.py"), "--task nowhere.py: FileNotFoundError"),
        (("--task", "sums", "--data", "abc.txt"), "--data: has no effect with --task"),
        (("--task", "sums", "--max-bytes", "5"), "--max-bytes: has no effect with --task"),
        (("--json", "--markdown"), "--markdown: has no effect with --json"),
        (("--json", "--examples", "2"), "--examples: has no effect with --json"),
        (("bytes", "--task", "sentences"), "bytes: conversations: the tokenizer (bytes) has no token <|"),
        (("--data", "nothing.txt"), "--data nothing.txt: no such file"),
        (("--max-bytes", "0"), "--max-bytes"),
        (("--max-bytes", "1"), "--data abc.txt: expected at least 2 tokens to evaluate on, received 1"),
    ],
)
def test_a_mistake_gets_one_line(tgc: Tgc, arguments: tuple[str, ...], message: str):
    Path("upper.txt").write_text("ABC " * 9)
    code, text, said = tgc("eval", *arguments)
    assert (code, text) == (2, "")
    assert message in said
    assert said.count("\n") == 1


OWN_TASK = """
from tinygrad_chat.tasks import Problem
from tinygrad_chat.text.conversations import Conversation

class Anything:
    name, about, chance = "anything", "say anything", 0.5

    def problems(self, count, seed):
        for number in range(count):
            yield Problem(Conversation.of(f"{number}?"), "yes", lambda said, number=number: number % 4 > 0)

class Choice(Anything):
    name = "choice"

    def problems(self, count, seed):
        yield Problem(Conversation.of("Which?"), "b", "b".__eq__, ("b", "zz"))
"""


@pytest.fixture
def chats(tgc: Tgc) -> None:
    """Two runs whose tokens are those of chats, though they have learned none, and tasks."""
    Path("own.py").write_text(OWN_TASK)
    Path("longer.txt").write_text("abc dba\n" * 120)
    chat = ("--data", "longer.txt", "--tokenizer", "bpe", "--vocabulary", "265")
    for name in ("a", "b"):
        assert tgc("train", *TINY_BIGRAM, *chat, "--context", "64", "--out", f"runs/{name}")[0] == 0


@pytest.mark.profile("ci")
@pytest.mark.usefixtures("chats")
def test_a_task_of_ones_own_is_asked_shown_and_kept(tgc: Tgc):
    code, text, said = tgc("eval", "a", "--task", "own.py:Anything", "--problems", "8", "--examples", "1")
    assert (code, said) == (0, "")
    head, row, mean, *rest = text.splitlines()
    assert head.split() == ["task", "solved", "of", "by", "chance", "centred", "seconds"]
    assert row.split()[:-1] == ["anything", "75.0", "±", "14.5", "%", "8", "50%", "0.500"]
    assert mean.split() == ["mean,", "centred", "0.500"]
    assert rest[:3] == ["", "a, anything: not solved", "  asked     0?"]
    [kept] = json.loads(Path("runs/a/evaluation.json").read_text())
    assert (kept["step"], kept["results"][0]["task"], kept["results"][0]["solved"]) == (4, "anything", 6)


@pytest.mark.profile("ci")
@pytest.mark.usefixtures("chats")
def test_runs_stand_beside_each_other(tgc: Tgc):
    tasks = ("--task", "own.py:Anything", "--task", "own.py:Choice")
    code, text, _ = tgc("eval", "a", "b", *tasks, "--problems", "4", "--markdown")
    assert code == 0
    assert text.splitlines()[:2] == ["| task | a | b |", "| --- | ---: | ---: |"]
    assert [line.split(" | ")[0] for line in text.splitlines()[2:]] == ["| anything", "| choice", "| mean, centred"]


@pytest.mark.profile("ci")
@pytest.mark.usefixtures("chats")
def test_what_was_found_is_shown_though_a_later_run_fails(tgc: Tgc):
    code, text, said = tgc("eval", "a", "nowhere", "bytes", "b", "--task", "own.py:Anything")
    assert code == 2
    assert text.splitlines()[0].split() == ["task", "a", "b"]
    assert [line.split(":")[1] for line in said.splitlines()] == [" bytes", " nowhere"]
    code, text, said = tgc("eval", "--json", "characters", "nowhere", "bytes")
    found = json.loads(text)
    assert (code, [each["run"] for each in found["evaluations"]]) == (2, ["characters", "bytes"])
    assert [each["run"] for each in found["failed"]] == ["nowhere"]
    assert said.count("\n") == 1


@pytest.mark.profile("ci")
@pytest.mark.usefixtures("chats")
def test_scores_that_cannot_be_kept_are_shown(tgc: Tgc):
    Path("runs/a/evaluation.json").write_text("{")
    code, text, said = tgc("eval", "a", "--task", "own.py:Anything", "--problems", "4")
    assert code == 0
    assert "anything" in text
    assert "evaluation.json: not valid JSON" in said
    assert said.endswith("; the scores are shown but not saved\n")
    assert Path("runs/a/evaluation.json").read_text() == "{"


@pytest.mark.profile("ci")
@pytest.mark.usefixtures("chats")
def test_a_run_that_chats_is_asked_all_tasks_and_measured_on_its_text(tgc: Tgc, monkeypatch: pytest.MonkeyPatch):
    checkpoint = Path("runs/a/checkpoints/step-000004")
    written = json.loads((checkpoint / "state.json").read_text())
    written["data"]["trained_tokens"] = 1
    (checkpoint / "state.json").write_text(json.dumps(written))
    resign(checkpoint)
    monkeypatch.setattr("tinygrad_chat.tasks.registry.TASKS", {"sentences": TASKS["sentences"]})
    code, text, _ = tgc("eval", "--json", "a", "bytes", "--problems", "3")
    found = json.loads(text)
    assert (code, [each["run"] for each in found["evaluations"]]) == (0, ["a", "bytes"])
    assert [(each["run"], each["task"], each["count"]) for each in found["tasks"]] == [("a", "sentences", 3)]
    assert list(found["mean_centred"]) == ["a"]
