"""`tgc tokenizer`: what it learns is a file that everybody reads; mistakes are one line."""

from __future__ import annotations

import io
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import tinygrad_chat
from tests.cli.conftest import Tgc
from tinygrad_chat.cli import display, tokenizer

Line = Callable[[str], tuple[int, str, str]]


@pytest.fixture
def line(tgc: Tgc) -> Line:
    """Run a line that begins with `tgc`, but without that, where text.txt lies and what was learned from it."""
    Path("text.txt").write_text("The cat sat on the mat, and the other cat sat there: 12345.\n" * 30)
    done = tgc("tokenizer", "train", "text.txt", "--vocabulary", "280")
    assert done == (0, "tokenizer.json: 280 tokens\n", "")
    return lambda words: tgc(*shlex.split(words))


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    return lambda content: monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_what_was_learned_encodes_and_decodes(line: Line, piped: Callable[[bytes], None]):
    loaded = tinygrad_chat.load_tokenizer("tokenizer.json")
    numbers = " ".join(map(str, loaded.encode("The cat").tolist()))
    assert line("tokenizer encode 'The cat' -t tokenizer.json") == (0, f"{numbers}\n", "")
    assert line(f"tokenizer decode {numbers} -t tokenizer.json") == (0, "The cat\n", "")
    piped(b"The cat\n")
    assert line("tokenizer encode -t tokenizer.json")[1] == f"{numbers}\n"
    piped(numbers.encode())
    assert line("tokenizer decode -t tokenizer.json")[1] == "The cat\n"
    piped(b"\xff")
    assert line("tokenizer encode - -t tokenizer.json")[1] == f"{loaded.encode(chr(0xDCFF))[0]}\n"


def test_pieces_are_shown_a_line_each_and_on_a_terminal_in_colours(line: Line, monkeypatch: pytest.MonkeyPatch):
    code, out, err = line("tokenizer show 'the cat\x1b' -t tokenizer.json")
    pieces = [shown.split("\t")[1] for shown in out.splitlines()]
    assert (code, "".join(pieces).replace("'", "")) == (0, r"the cat\x1b")
    assert err == f"tgc: {len(pieces)} tokens, 8 bytes: {8 / len(pieces):.2f} bytes a token\n"

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    tokenizer.show("the cat", "tokenizer.json")
    assert "\x1b[" in terminal.getvalue()
    assert "cat" in terminal.getvalue()
    for name, value in (("NO_COLOR", "1"), ("TERM", "dumb")):
        with monkeypatch.context() as patched:
            patched.setenv(name, value)
            patched.setattr(sys, "stdout", plain := Terminal())
            tokenizer.show("the cat", "tokenizer.json")
        assert len(plain.getvalue().splitlines()) == len(pieces) - 1  # as in a pipe: there is no escape here


def test_tokenizers_are_compared_on_a_text(line: Line):
    code, out, err = line("tokenizer compare tokenizer.json characters bytes --data text.txt")
    rows = [shown.split() for shown in out.splitlines()]
    assert code == 0
    assert [row[0] for row in rows[1:]] == ["tokenizer.json", "characters", "bytes"]
    assert rows[3][1:4] == ["257", "1,800", "1.000"]
    assert float(rows[1][3]) > 1.5
    assert err == "tgc: 1,800 bytes of text.txt\n"


def test_digits_ties_and_ranks_can_be_chosen(line: Line):
    assert line("tokenizer train text.txt --vocabulary 275 --digits 3 --ties letters -o a.tiktoken")[0] == 0
    ranks = Path("a.tiktoken").read_bytes().splitlines()
    assert ranks[0] == b"IQ== 0"  # an exclamation mark, the first that prints
    code, out, err = line("tokenizer train text.txt --vocabulary 5000 -o b.json")
    assert code == 0
    assert err.startswith("tgc: the text has words for ")
    assert out.startswith("b.json: ")


NEITHER = "tokenizer: expected a tokenizer.json, ranks of tiktoken, or a run; "


@pytest.mark.parametrize(
    ("command", "message"),
    {
        "tokenizer train text.txt": "--out tokenizer.json: is there already; choose another name",
        "tokenizer train none.txt -o n.json": "--data none.txt: no such file or folder",
        "tokenizer train text.txt --vocabulary 264": "--vocabulary: expected at least 265, received 264",
        "tokenizer train text.txt --ties x": "--ties: expected bytes or letters, received 'x'",
        "tokenizer train text.txt --trainer x -o n.json": "trainer: expected one of python, rustbpe, received 'x'",
        "tokenizer train text.txt --out no/such.json": "no/such.json: cannot be written: No such file or directory",
        "tokenizer encode a -t none.json": NEITHER + "none.json: no such file or folder; tgc runs lists the runs",
        "tokenizer encode a -t text.txt": NEITHER + "text.txt: no",
        "tokenizer decode x -t tokenizer.json": "tokenizer decode: expected numbers, received 'x'",
        "tokenizer decode 300 -t tokenizer.json": "decode: expected tokens from 0 to 279, received 300",
        "tokenizer compare none --data text.txt": NEITHER,
        "train --data text.txt --tokenizer none": "--tokenizer: expected characters, bytes, bpe, or the path of a",
        "train --data text.txt --tokenizer text.txt": "--tokenizer: expected characters, bytes, bpe, or the path of a",
        "train --data text.txt --vocabulary 300": "--vocabulary: plays no part with --tokenizer characters",
        "train --data text.txt --tokenizer bpe --vocabulary 3": "--vocabulary: expected at least 265, received 3",
    }.items(),
)
def test_a_mistake_is_a_line(command: str, message: str, line: Line):
    code, _, err = line(command)
    assert code in (2, 3)
    assert err.startswith(f"tgc: {message}")
    assert err.count("\n") == 1


TINY = "--layers 1 --heads 1 --width 8 --context 8 --steps 2 --batch-size 2 --quiet"


def test_a_run_learns_its_tokenizer_and_lends_it(line: Line):
    assert line(f"train --data text.txt --tokenizer bpe --vocabulary 280 --out a {TINY}")[0] == 0
    ours = tinygrad_chat.load_tokenizer("a")
    assert ours.state() == tinygrad_chat.load_tokenizer("tokenizer.json").state()
    assert line(f"train --data text.txt --tokenizer tokenizer.json --out b {TINY}")[0] == 0
    assert line(f"train --data text.txt --tokenizer ./a --out c {TINY}")[0] == 0
    for run in "bc":
        assert tinygrad_chat.load_tokenizer(run).state() == ours.state()
    assert line("train --resume --out b --steps 3 --quiet")[0] == 0
    code, _, err = line("train --resume --out a --vocabulary 400")
    assert (code, err.split(";")[0]) == (2, "tgc: --vocabulary: the run to resume has 280, received 400")
    assert line("sample --checkpoint a --max-new-tokens 3 --prompt '<|bos|>'")[1].startswith("<|bos|>")


def test_merging_is_told_by_pairs_and_reading_by_bytes():
    descriptions: list[str] = []

    class Shown:
        def update(self, task: object, *, description: str, completed: int, total: int) -> None:
            descriptions.append(description)

    bar = display.Bar.__new__(display.Bar)
    bar._progress, bar._task = Shown(), 0  # pyright: ignore[reportAttributeAccessIssue]
    bar.progressed("merging", 64, 3831)
    bar.progressed("counting words", 1 << 20, 2_000_000)
    assert descriptions == ["merging 3,831 pairs", "counting words 2.0 MB"]
