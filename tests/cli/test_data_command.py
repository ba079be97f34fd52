"""`tgc data`: what is kept is listed, shown and removed, and nothing that is in use."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Tgc
from tinygrad_chat.text.data import open_data


@pytest.fixture
def texts(tmp_path: Path, tgc: Tgc) -> list[str]:
    """Three texts, tokenized: the first was used last."""
    names = ["a.txt", "b.txt", "c\x1b[31m.txt"]
    for age, name in enumerate(names):
        Path(name).write_text(f"text {age}\n" * 20)
        open_data(name, "bytes")
    for age, path in enumerate(ordered()):
        os.utime(path / "metadata.json", (2e9 - 100 * age, 2e9 - 100 * age))
    return names


def ordered() -> list[Path]:
    folder = Path(os.environ["TINYGRAD_CHAT_CACHE"]) / "tokens"
    return sorted(folder.iterdir(), key=lambda path: json.loads((path / "metadata.json").read_text())["source"])


def listed(tgc: Tgc) -> list[dict[str, object]]:
    code, out, _ = tgc("data", "list", "--json")
    assert code == 0
    return [json.loads(line) for line in out.splitlines()]


def test_what_is_kept_is_listed_the_last_used_first(tgc: Tgc, texts: list[str]):
    code, out, err = tgc("data", "list")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["data", "tokenizer", "tokens", "size", "last", "used", "id", "documents"]
    assert [line.split()[0] for line in lines[1:4]] == ["a.txt", "b.txt", r"c\x1b[31m.txt"]
    assert "bytes 257     141" in lines[1]
    assert lines[-1].startswith("3 texts, ")
    assert [each["source"] for each in listed(tgc)] == texts
    assert {(each["tokens"], each["documents"], each["vocabulary"]) for each in listed(tgc)} == {(141, 1, 257)}


def test_nothing_kept_is_said(tgc: Tgc, cache: Path):
    assert tgc("data", "list") == (0, "", f"no tokens are stored in {cache / 'tokens'}\n")


def test_some_are_removed_by_name_or_id_and_the_others_stay(tgc: Tgc, texts: list[str]):
    number = str(next(each["id"] for each in listed(tgc) if each["source"] == "b.txt"))
    assert tgc("data", "clear", "a.txt", number, "--yes") == (0, "removed the tokens of 2 texts\n", "")
    assert [each["source"] for each in listed(tgc)] == texts[2:]
    code, _, err = tgc("data", "clear", "a.txt", "--yes")
    assert (code, err) == (2, "tgc: a.txt: no tokens of such a text are stored; tgc data list shows those that are\n")


def test_all_are_removed_but_what_is_in_use(tgc: Tgc, texts: list[str]):
    held = open_data("b.txt", "bytes")
    code, out, err = tgc("data", "clear", "--yes")
    assert (code, out, err) == (0, "removed the tokens of 2 texts\n", "tgc: b.txt: is in use, so it stays\n")
    assert held.tokens[1:7].tobytes() == b"t\0e\0x\0t\0 \x001\0"
    assert [each["source"] for each in listed(tgc)] == ["b.txt"]


def test_what_another_version_kept_or_is_damaged_is_listed_and_removed(tgc: Tgc, texts: list[str]):
    (ordered()[0] / "metadata.json").unlink()
    assert sorted(str(each["source"]) for each in listed(tgc)) == ["", *texts[1:]]
    assert tgc("data", "list")[1].splitlines()[-3].split()[:3] == ["-", "-", "-"]
    assert tgc("data", "clear", "--yes")[1] == "removed the tokens of 3 texts\n"
    assert listed(tgc) == []


@pytest.mark.parametrize(("answer", "left"), [("n", 3), ("y", 0)])
def test_somebody_is_asked_before(tgc: Tgc, texts: list[str], answer: str, left: int, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []
    monkeypatch.setattr("typer.confirm", lambda question: asked.append(question) or answer == "y")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    assert tgc("data", "clear")[0] == 0
    assert asked[0].startswith("Remove the tokens of 3 texts, ")
    assert len(listed(tgc)) == left


def test_nobody_to_ask_is_one_line(tgc: Tgc, texts: list[str]):
    code, _, err = tgc("data", "clear")
    assert code == 2
    assert err.startswith("tgc: data clear: would remove the tokens of 3 texts, ")
    assert err.endswith("; add --yes to do so\n")
    assert len(listed(tgc)) == 3


def test_a_text_is_shown_with_its_documents_and_their_tokens(tgc: Tgc):
    Path("many.jsonl").write_text("".join(json.dumps({"text": f"document {n}\x1b"}) + "\n" for n in range(60)))
    code, out, err = tgc("data", "show", "many.jsonl", "-n", "2", "--tokenizer", "bytes")
    assert (code, err) == (0, "")
    assert out.splitlines()[:7] == [
        "many.jsonl: 60 documents, 710 bytes",
        "770 tokens by bytes, vocabulary 257, 1.00 bytes a token",
        out.splitlines()[2],
        "",
        "document 1, to train on: 12 tokens",
        '  "document 0\\u001b"',
        "  256 100 111 99 117 109 101 110 116 32 48 27",
    ]
    assert out.splitlines()[2].endswith(" tokens held out: whole documents, by their hash")
    assert (out.count("to train on"), out.count(", held out: ")) == (2, 2)
    for line in out.splitlines():
        assert len(line) <= 102


def test_sources_with_shares_are_shown_each_by_itself_and_one_that_is_none_is_one_line(tgc: Tgc):
    for name in "ab":
        Path(name).write_text("word " * 50)
    out = tgc("data", "show", "a:0.5", "b:0.5", "-n", "0")[1]
    assert [line for line in out.splitlines() if "documents" in line or "1 document" in line] == [
        "a: 1 document, 250 bytes",
        "b: 1 document, 250 bytes",
    ]
    assert "\n\nb: 1 document" in out
    assert tgc("data", "show", "a:0.5", "b")[0] == 2
    assert tgc("data", "show", "c")[2].startswith("tgc: --data c: no such file or folder")
    assert tgc("data", "show", "a", "--split", "x")[2].startswith("tgc: --split: expected one of auto, documents, end")


def test_a_text_is_shown_by_a_tokenizer_that_is_learned_from_it(tgc: Tgc):
    Path("a").write_text("word " * 50)
    code, out, err = tgc("data", "show", "a", "-n", "0", "--tokenizer", "bpe", "--vocabulary", "267")
    assert (code, err, out.splitlines()[1]) == (0, "", "151 tokens by bpe, vocabulary 267, 1.67 bytes a token")
    assert tgc("data", "show", "a", "-n", "0", "--vocabulary", "267")[1] == out
    code, out, err = tgc("data", "show", "a", "--tokenizer", "characters", "--vocabulary", "300")
    message = "--vocabulary: has no effect with --tokenizer characters; it needs --tokenizer bpe"
    assert (code, err) == (2, f"tgc: {message}\n")


def test_one_token_is_no_tokens(tgc: Tgc):
    Path("a").touch()
    assert tgc("data", "show", "a")[1].splitlines()[1:3] == [
        "1 token by characters, vocabulary 1, 0.00 bytes a token",
        "0 tokens held out: the end",
    ]


def test_alone_it_says_what_it_can(tgc: Tgc):
    code, out, err = tgc("data")
    assert (code, err) == (0, "")
    assert out == tgc("data", "--help")[1]
    for name in ("list", "show", "clear"):
        assert f"\n  {name} " in out
    assert "..." not in out.partition("Commands:")[2]  # what each is for stands there whole


def test_help_names_the_choices_as_that_of_training_does(tgc: Tgc):
    out = tgc("data", "show", "--help")[1]
    assert "--tokenizer auto|characters|bytes|bpe|PATH" in out
    assert "--split auto|documents|end" in out
