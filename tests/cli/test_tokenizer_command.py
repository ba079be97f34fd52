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
from tinygrad_chat.text.conversations.jinja import chat_template

Line = Callable[[str], tuple[int, str, str]]


@pytest.fixture
def line(tgc: Tgc) -> Line:
    """Run a line that begins with `tgc`, but without that, where text.txt lies and what was learned from it."""
    Path("empty.txt").touch()
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


@pytest.mark.profile("ci")
def test_tokenizers_are_compared_on_a_text(line: Line):
    code, out, err = line("tokenizer compare tokenizer.json characters bytes --data text.txt")
    rows = [shown.split() for shown in out.splitlines()]
    assert code == 0
    assert [row[0] for row in rows[1:]] == ["tokenizer.json", "characters", "bytes"]
    assert rows[3][1:4] == ["257", "1,800", "1.000"]
    assert float(rows[1][3]) > 1.5
    assert err == "tgc: 1,800 bytes of text.txt\n"


def test_pieces_ties_and_ranks_can_be_chosen(line: Line):
    assert line("tokenizer train text.txt --vocabulary 275 --pre-tokenizer llama3 --ties letters -o a.tiktoken")[0] == 0
    ranks = Path("a.tiktoken").read_bytes().splitlines()
    assert ranks[0] == b"IQ== 0"  # an exclamation mark, the first that prints
    code, out, err = line("tokenizer train text.txt --vocabulary 5000 -o b.json")
    assert code == 0
    assert err.startswith("tgc: the text is only enough for ")
    assert out.startswith("b.json: ")


def test_the_template_of_chats_is_written_for_other_programs(line: Line):
    assert line("tokenizer show --chat-template -t tokenizer.json") == (0, f"{chat_template()}\n", "")
    message = "tgc: conversations: the tokenizer (bytes) has no token <|user_start|>; train with --tokenizer bpe"
    assert line("tokenizer show --chat-template -t bytes")[::2] == (2, f"{message}, which has it\n")
    assert line("tokenizer show --chat-template a -t bytes")[2].startswith("tgc: --chat-template: has no effect with")


def test_half_a_character_is_shown_as_its_bytes(line: Line):
    code, out, _ = line("tokenizer show ée -t bytes")
    assert (code, out) == (0, "195\tb'\\xc3'\n169\tb'\\xa9'\n101\t'e'\n")
    assert line("tokenizer show é -t tokenizer.json")[1] == out[: out.index("101")]


def test_numbers_may_be_given_in_one_piece(line: Line):
    assert line("tokenizer decode '104 105' 33 -t bytes") == (0, "hi!\n", "")


def test_what_is_left_out_of_a_folder_is_said(line: Line):
    Path("folder").mkdir()
    Path("folder/a.txt").write_text("the cat\n" * 9)
    Path("folder/b.png").write_bytes(b"\x89PNG\0")
    for command in ("tokenizer train folder --vocabulary 266 -o a.json", "tokenizer compare bytes --data folder"):
        code, _, err = line(command)
        assert code == 0
        assert err.startswith("tgc: folder: left out 1 .png (no text)\n")


def test_several_texts_are_compared_on_and_learned_from(line: Line):
    Path("more.txt").write_text("and more\n" * 9)
    code, out, err = line("tokenizer compare bytes bpe --data text.txt --data more.txt")
    assert (code, err) == (0, "tgc: 1,881 bytes of text.txt and 1 more\n")
    assert [row.split()[0] for row in out.splitlines()[1:]] == ["bytes", "bpe"]


def test_what_cannot_be_opened_is_said_before_anything_is_learned(line: Line, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tinygrad_chat.text.learning.learn_tokenizer", None)
    code, _, err = line("tokenizer compare bpe none --data text.txt")
    assert (code, err[: len(NEITHER) + 5]) == (2, f"tgc: {NEITHER}")


def test_a_file_that_is_there_stays_and_is_noticed_before_anything_is_learned(
    line: Line, monkeypatch: pytest.MonkeyPatch
):
    before = Path("tokenizer.json").read_bytes()
    monkeypatch.setattr("tinygrad_chat.text.tokenizers.bpe_training.train_bpe", None)
    code, _, err = line("tokenizer train text.txt --vocabulary 270")
    assert (code, err) == (2, "tgc: tokenizer.json: already exists; name another file with --out, or remove it\n")
    assert Path("tokenizer.json").read_bytes() == before
    code, _, err = line("tokenizer train text.txt --vocabulary 270 --out no/such.json")
    assert (code, err) == (
        3,
        "tgc: no/such.json: cannot be written: No such file or directory; choose another folder\n",
    )


NEITHER = "tokenizer: expected bytes, or the path of a tokenizer.json, of tiktoken's ranks or of a run; "


@pytest.mark.parametrize(
    ("command", "message"),
    {
        "tokenizer train none.txt -o a": "--data none.txt: no such file or folder",
        "tokenizer train text.txt --vocabulary 264": "--vocabulary: expected at least 265, received 264",
        "tokenizer train text.txt --ties x": "--ties: expected one of bytes, letters, received 'x'",
        "tokenizer train text.txt --ties letters --trainer rustbpe -o a": "--ties letters: has no effect with",
        "tokenizer train empty.txt -o a": "--data empty.txt: is empty; expected text to train on",
        "tokenizer train text.txt --trainer x": "--trainer: expected one of python, rustbpe, received 'x'",
        "tokenizer train text.txt --out no/such.json": "no/such.json: cannot be written: No such file or directory",
        "tokenizer encode a -t none.json": NEITHER + "none.json: no such file or folder; tgc runs lists the runs",
        "tokenizer encode a -t text.txt": NEITHER + "text.txt: no",
        "tokenizer decode x -t tokenizer.json": "tokenizer decode: expected token ids, received 'x'",
        "tokenizer decode 300 -t tokenizer.json": "decode: expected tokens from 0 to 279, received 300",
        "tokenizer compare none --data text.txt": NEITHER,
        "train --data text.txt --tokenizer none": "--tokenizer: expected characters, bpe, bytes, or the path of a",
        "train --data text.txt --tokenizer text.txt": "--tokenizer: expected characters, bpe, bytes, or the path of a",
        "train --tokenizer bytes --vocabulary 300": "--vocabulary: has no effect with --tokenizer bytes",
        "train --data text.txt --tokenizer bpe --vocabulary 3": "--vocabulary: expected at least 265, received 3",
    }.items(),
)
def test_a_mistake_is_a_line(command: str, message: str, line: Line):
    code, _, err = line(command)
    assert code in (2, 3)
    assert err.startswith(f"tgc: {message}")
    assert err.count("\n") == 1


TINY = "--layers 1 --heads 1 --width 8 --context 8 --steps 2 --batch-size 2 --quiet"


@pytest.mark.profile("ci")
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
