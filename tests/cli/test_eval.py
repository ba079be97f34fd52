"""`tgc eval`: a table for people, an object for programs."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import TINY_BIGRAM, Tgc
from tinygrad_chat.text.standard_input import keep_standard_input


@pytest.fixture(autouse=True)
def runs(tgc: Tgc) -> None:
    """Two runs with different tokenizers."""
    Path("abc.txt").write_text("abc dba\n" * 60)
    for tokenizer in ("characters", "bytes"):
        made = ("--data", "abc.txt", "--tokenizer", tokenizer, "--out", f"runs/{tokenizer}")
        assert tgc("train", *TINY_BIGRAM, *made)[0] == 0


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


def test_a_text_that_a_tokenizer_lacks_is_one_line_that_names_the_run(tgc: Tgc):
    Path("other.txt").write_text("abba é\n")
    code, _, said = tgc("eval", "bytes", "characters", "--data", "other.txt")
    assert code == 2
    assert said.startswith("tgc: characters: character 'é' (U+00E9) at offset 5 is not among the 6 characters")
    assert said.count("\n") == 1


def test_a_run_whose_text_is_gone_says_so_and_what_to_do(tgc: Tgc):
    Path("abc.txt").unlink()
    code, _, said = tgc("eval", "bytes")
    assert code == 2
    assert said.startswith("tgc: bytes: --data abc.txt: no such file or folder")
    assert said.endswith("; or name another text with --data\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--encoding", "latin-1"), "--encoding: plays no part without --data"),
        (("nowhere",), "nowhere: no such file or folder; tgc runs lists the runs"),
        (("bytes", "characters", "--data", "upper.txt"), "characters: character 'A'"),
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
