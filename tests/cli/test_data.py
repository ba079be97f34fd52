"""`--data` in every form that people give it, names that a shell or a chart could take for something else, and `~`."""

from __future__ import annotations

import html
import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import TINY_BIGRAM, Tgc
from tinygrad_chat.config.files import read_settings
from tinygrad_chat.formatting import quoted
from tinygrad_chat.text.standard_input import keep_standard_input

SIGNS = ["R&D", "a(b)", "x$y z", "it's", 'say "hi"', "_base", "a$b$c", r"x$\foo$", "~draft", "-x", "50%", "a;b", "*"]
NO_UTF8 = os.fsdecode(b"caf\xe9")
TRAIN = ["train", *TINY_BIGRAM]


def write(name: str, text: str = "hello world\n" * 30) -> None:
    Path(name).write_text(text)


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put a text into standard input."""

    def put(text: str) -> None:
        keep_standard_input.cache_clear()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))

    return put


def test_standard_input_is_kept_so_that_the_run_can_be_gone_on_with(tgc: Tgc, pipe, cache: Path):
    pipe("hello world\n" * 30)
    code, _, err = tgc(*TRAIN, "--data", "-", "--out", "run")
    assert (code, err) == (0, "")
    assert tgc("train", "--resume", "--out", "run", "--steps", "5")[0] == 0
    for kept in (cache / "input").iterdir():
        kept.unlink()
    code, _, err = tgc("train", "--resume", "--out", "run", "--steps", "6")
    assert code == 2
    assert "data from standard input is no longer cached; pipe it in again with --data -" in err


def test_the_same_text_piped_in_again_goes_on_and_another_does_not(tgc: Tgc, pipe):
    pipe("hello world\n" * 30)
    tgc(*TRAIN, "--data", "-", "--out", "run")
    pipe("hello world\n" * 30)
    assert tgc("train", "--resume", "--out", "run", "--steps", "6", "--data", "-")[0] == 0
    pipe("another text\n" * 30)
    code, _, err = tgc("train", "--resume", "--out", "run", "--steps", "7", "--data", "-")
    assert code == 2
    assert "is not the text that the run was trained on" in err


def test_what_stands_where_standard_input_is_kept_is_replaced_unless_it_is_that_file(pipe, cache: Path, tmp_path: Path):
    pipe("hello world\n")
    path = Path(keep_standard_input())
    (tmp_path / "elsewhere").write_text("another text")
    for stand in (lambda: path.symlink_to(tmp_path / "elsewhere"), lambda: path.write_text("cut")):
        path.unlink()
        stand()
        pipe("hello world\n")
        assert keep_standard_input() == str(path)
        assert (path.is_symlink(), path.read_text()) == (False, "hello world\n")
    assert (tmp_path / "elsewhere").read_text() == "another text"
    assert [kept.name for kept in (cache / "input").iterdir()] == [path.name]


def test_standard_input_that_is_closed_is_one_line(tgc: Tgc, monkeypatch: pytest.MonkeyPatch):
    keep_standard_input.cache_clear()
    monkeypatch.setattr(sys, "stdin", None)
    code, _, err = tgc(*TRAIN, "--data", "-")
    assert (code, err) == (2, "tgc: --data -: standard input is closed; name a file, or pipe a text in\n")


def test_standard_input_is_read_once_for_all_runs_of_an_ablation(tgc: Tgc, pipe):
    pipe("hello world\n" * 30)
    assert tgc("ablate", *TINY_BIGRAM, "--data", "-", "--vary", "tied", "--seeds", "1")[0] == 0


def test_data_may_be_repeated_and_the_run_remembers_it(tgc: Tgc):
    write("a.txt")
    write("b.txt", "more text\n" * 30)
    code, out, _ = tgc(*TRAIN, "--data", "b.txt", "--data", "a.txt", "--out", "run")
    assert code == 0
    assert "data b.txt and 1 more:" in out
    assert read_settings("run/config.toml")["data"] == ("b.txt", "a.txt")
    assert tgc("train", "--resume", "--out", "run", "--steps", "5")[0] == 0
    assert tgc("train", "--config", "run/config.toml", "--out", "again")[0] == 0
    assert Path("again/log.jsonl").read_bytes()[:100] == Path("run/log.jsonl").read_bytes()[:100]


def test_a_run_is_named_after_its_first_source_and_compared_by_all(tgc: Tgc):
    write("a.txt")
    write("b.txt", "more text\n" * 30)
    assert tgc(*TRAIN, "--data", "a.txt:0.5", "--data", "b.txt:0.5")[0] == 0
    assert tgc(*TRAIN, "--data", "b.txt", "--out", "other")[0] == 0
    [run] = Path("runs").iterdir()
    assert run.name.startswith("bigram-a-20")
    assert re.search(r"^data +…:0.5, b.txt:0.5 +b.txt$", tgc("compare", str(run), "other")[1], re.MULTILINE)


def test_what_a_folder_holds_beside_text_is_said_and_listed(tgc: Tgc):
    Path("notes").mkdir()
    write("notes/a.txt")
    Path("notes/photo.png").write_bytes(b"\x89PNG\0")
    code, out, _ = tgc(*TRAIN, "--data", "notes", "--out", "run")
    assert code == 0
    assert "\nnotes: left out 1 .png (no text)\n" in out
    code, out, _ = tgc(*TRAIN, "--data", "notes", "--out", "other", "--json")
    assert json.loads(out)["left_out"] == [{"path": "notes/photo.png", "reason": "no text"}]


@pytest.mark.profile("ci")
def test_what_is_left_out_of_conversations_is_said(tgc: Tgc):
    asked = {"role": "user", "content": "hi"}
    chat = [asked, {"role": "assistant", "content": "yo" * 99}]
    Path("a.jsonl").write_text(f"{json.dumps(chat)}\n" * 20 + json.dumps([*chat, asked]))
    few = ("--tokenizer", "bpe", "--vocabulary", "266", "--split", "end", *TINY_BIGRAM)
    code, out, err = tgc("train", "--data", "a.jsonl", *few)
    assert (code, err) == (0, "")
    left_out = "a.jsonl: left out 1 question that nobody has answered"
    cut = "a.jsonl: cut 19 conversations longer than the context of 8 tokens; "
    cut += "questions left out: 19, answers without their end: 19"
    assert [line for line in out.splitlines() if line.startswith("a.jsonl")] == [left_out, cut]
    assert left_out in tgc("data", "show", "a.jsonl", "-n", "0")[1].splitlines()
    assert tgc("eval", "--data", "a.jsonl")[2] == f"tgc: {left_out}\ntgc: {cut}\n".replace("19", "21")


def test_runs_inside_the_data_change_nothing(tgc: Tgc):
    write("a.txt")
    for left_out in ("", ".: left out 1 run"):
        code, out, err = tgc(*TRAIN, "--data", ".")
        assert (code, err) == (0, "")
        assert "data .: 325 tokens to train on" in out
        assert left_out in out
    assert tgc("train", "--resume", "--steps", "5")[0] == 0
    code, _, err = tgc(*TRAIN, "--data", ".", "--out", "../" + Path.cwd().name)
    assert code == 2
    assert "is the folder of the data; choose another, as in --out" in err


def test_another_text_on_resuming_is_called_another_text(tgc: Tgc):
    write("a.txt")
    write("b.txt", "hello hello\n" * 30)
    write("c.txt", "xyz\n" * 90)
    tgc(*TRAIN, "--data", "a.txt", "--out", "run")
    for other in ("b.txt", "c.txt"):
        code, _, err = tgc("train", "--resume", "--out", "run", "--steps", "5", "--data", other)
        assert code == 2
        assert f"--data {other}: is not the text that the run was trained on, a.txt" in err
    write("a.txt", "hello hello\n" * 30)
    assert "has changed since the run began" in tgc("train", "--resume", "--out", "run", "--steps", "5")[2]


@pytest.mark.profile("ci")
@pytest.mark.parametrize("name", ["_base it's R&D", r"$x$\foo$ (a;b)", '~draft "hi" 50%', "-x*", NO_UTF8])
def test_a_name_of_any_signs_trains_reports_and_compares(tgc: Tgc, name: str):
    for stream in (sys.stdout, sys.stderr):
        assert isinstance(stream, io.TextIOWrapper)
        stream.reconfigure(errors="replace")
    write(f"{name}.txt")
    train = (*TRAIN, f"--data={name}.txt", f"--out={name}")
    assert tgc(*train)[0] == 0
    assert tgc("train", "--resume", f"--out={name}", "--steps", "5")[0] == 0
    assert tgc("sample", f"--checkpoint={name}", "--max-new-tokens", "2")[0] == 0
    assert tgc("runs", "--", name)[0] == 0
    assert tgc("report", "--", name)[0] == 0
    tgc(*TRAIN, "--data", "pydoc", "--out", "other")
    assert tgc("compare", "--out", "curves", "--", name, "other")[0] == 0
    if name.isprintable():
        assert name in html.unescape(Path("curves/compare.svg").read_text())


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of Unix")
@pytest.mark.parametrize("name", [*SIGNS, NO_UTF8, "new\nline", "tab\t", "\x1b]0;title\x07", "日本", ""])
def test_a_quoted_path_pasted_into_a_shell_is_that_path(name: str):
    came = subprocess.run(["bash", "-c", f"printf %s {quoted(name)}"], stdout=subprocess.PIPE, check=True).stdout
    assert os.fsdecode(came) in (name, f"./{name}")
    assert quoted(name).isprintable()


@pytest.mark.profile("ci")
def test_the_command_that_is_printed_last_can_be_pasted(tgc: Tgc):
    write("a.txt")
    for name in ("it's", "~R&D"):
        _, out, _ = tgc(*TRAIN, "--data", "a.txt", f"--out={name}")
        sample, resume = (shlex.split(line) for line in out.splitlines() if line.startswith("  tgc "))
        assert tgc(*sample[1:])[0] == 0
        assert tgc(*resume[1:])[0] == 0


@pytest.mark.profile("ci")
def test_a_home_folder_is_meant_where_there_is_one(tgc: Tgc, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(Path.cwd()))
    write("a.txt")
    write("c.toml", "steps = 3")
    assert tgc(*TRAIN, "--data", "~/a.txt", "--out", "~/run", "--config", "~/c.toml")[0] == 0
    assert Path("run/report.html").exists()
    for command in (["runs", "~/run"], ["report", "~/run"], ["sample", "--checkpoint", "~/run"]):
        assert tgc(*command)[0] == 0
    for command in (["import", "~nobody.safetensors"], ["export", "nanochat", "nobody", "~nobody.safetensors"]):
        code, _, err = tgc(*command)
        assert (code, err.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data", "a.jsonl", "--text-field", "messages"], "expected text under 'messages', received a list"),
        (["--data", "a.txt", "--encoding", "klingon"], "--encoding: expected a name such as utf-8"),
        (["--data", "a.txt", "--text-field", NO_UTF8], "--text-field: expected text in UTF-8"),
        (["--data", "*.nothing"], "contains no text files"),
        (["--data", ""], "--data: expected a file, a folder or a built-in name, received none"),
    ],
)
def test_what_cannot_be_is_one_line(tgc: Tgc, options: list[str], words: str):
    write("a.txt")
    write("a.jsonl", '{"messages": [{"role": "user", "content": "hello"}]}\n')
    code, _, err = tgc(*TRAIN, *options)
    assert (code, err.count("\n")) == (2, 1)
    assert words in err
