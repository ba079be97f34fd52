"""`tgc eval`: a table for people, an object for programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import TINY_BIGRAM, Tgc


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--encoding", "latin-1"), "--encoding: plays no part without --data"),
        (("nowhere",), "nowhere: no such file or folder; tgc runs lists the runs"),
        (("bytes", "characters", "--data", "upper.txt"), "characters: character 'A'"),
        (("--data", "nothing.txt"), "--data nothing.txt: no such file"),
        (("--max-bytes", "0"), "--max-bytes"),
    ],
)
def test_a_mistake_gets_one_line(tgc: Tgc, arguments: tuple[str, ...], message: str):
    Path("upper.txt").write_text("ABC " * 9)
    code, text, said = tgc("eval", *arguments)
    assert (code, text) == (2, "")
    assert message in said
    assert said.count("\n") == 1
