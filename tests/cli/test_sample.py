"""`tgc sample`: prompts from wherever they come, and another text each time."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import TINY_BIGRAM, Tgc
from tinygrad_chat.cli.app import run
from tinygrad_chat.cli.streams import escaped_streams

HandIn = Callable[[bytes], None]


@pytest.fixture
def model(tgc: Tgc) -> None:
    """A run to sample from, in the folder that we are in."""
    Path("abc.txt").write_text("abc dba\n" * 40)
    assert tgc("train", *TINY_BIGRAM, "--data", "abc.txt", "--out", "runs/r")[0] == 0


@pytest.fixture
def hand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], None]]:
    """Let standard input be a pipe with so many bytes."""
    with contextlib.ExitStack() as stack:

        def pipe(content: bytes) -> None:
            reader, writer = os.pipe()
            os.write(writer, content)
            os.close(writer)
            monkeypatch.setattr(sys, "stdin", stack.enter_context(os.fdopen(reader)))

        yield pipe


@pytest.mark.usefixtures("model")
def test_each_text_is_another_and_its_seed_brings_it_back(tgc: Tgc):
    texts = {}
    for _ in range(3):
        code, text, said = tgc("sample", "--temperature", "9", "--num-samples", "2")
        assert code == 0
        [seed] = re.findall(r"^tgc: seed (\d+); the same text again with --seed \1$", said, re.MULTILINE)
        texts[seed] = text
    assert len(set(texts.values())) == 3
    for seed, text in texts.items():
        assert tgc("sample", "--temperature", "9", "--num-samples", "2", "--seed", seed) == (0, text, "")


@pytest.mark.usefixtures("model")
def test_without_chance_there_is_no_seed_to_tell_of(tgc: Tgc):
    assert tgc("sample", "--temperature", "0", "--max-new-tokens", "5")[2] == ""


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize("arguments", [(), ("--prompt", "-")], ids=str)
def test_a_prompt_comes_through_a_pipe_without_the_line_end_of_echo(
    tgc: Tgc, hand_in: HandIn, arguments: tuple[str, ...]
):
    hand_in(b"abc d\n")
    piped = tgc("sample", "--seed", "1", *arguments)
    assert piped == tgc("sample", "--seed", "1", "--prompt", "abc d")
    assert piped[1].startswith("abc d")


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize("prompt", ["cab", ""])
def test_a_prompt_that_is_given_leaves_the_pipe_alone(tgc: Tgc, hand_in: HandIn, prompt: str):
    hand_in(b"\xff")
    assert tgc("sample", "--prompt", prompt)[0] == 0
    assert sys.stdin.buffer.read() == b"\xff"


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ab\xff", "byte 0xff at offset 2 of standard input is not UTF-8"),
        (b"ab" * 50, "expected at most 0 MiB of text, received more"),
    ],
    ids=["bytes", "long"],
)
def test_a_prompt_that_is_no_text_is_one_line(
    tgc: Tgc, hand_in: HandIn, monkeypatch: pytest.MonkeyPatch, content: bytes, message: str
):
    monkeypatch.setattr("tinygrad_chat.cli.prompt.LONGEST", 99)
    hand_in(content)
    assert tgc("sample") == (2, "", f"tgc: --prompt -: {message}\n")


@pytest.mark.usefixtures("model")
def test_a_long_prompt_is_said_to_be_cut_and_shown_whole(tgc: Tgc):
    code, text, said = tgc("sample", "--prompt", "abc abc abc", "--seed", "1")
    assert code == 0
    assert text.startswith("abc abc abc")
    assert said == "tgc: the prompt has 11 tokens; the model continues from the last 8, its context\n"


@pytest.mark.usefixtures("model")
def test_a_service_without_standard_input_samples_but_has_no_prompt_there(tgc: Tgc, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdin", None)
    assert tgc("sample", "--seed", "1")[0] == 0
    expected = "tgc: --prompt -: standard input is closed; give the text itself\n"
    assert tgc("sample", "--prompt", "-") == (2, "", expected)


@pytest.mark.usefixtures("model")
def test_whoever_waits_for_a_prompt_says_so(tgc: Tgc, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tinygrad_chat.cli.prompt.PATIENCE", 0.02)
    reader, writer = os.pipe()
    with os.fdopen(reader) as stdin, os.fdopen(writer, "wb") as pipe:
        monkeypatch.setattr(sys, "stdin", stdin)

        class Screen(io.StringIO):
            def write(self, text: str) -> int:
                if "waiting" in text:
                    pipe.write(b"cab")
                    pipe.close()
                return super().write(text)

        screen = Screen()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", screen)
            assert run(["sample", "--seed", "1"]) == 0
    assert "waiting for the prompt from standard input" in screen.getvalue()


@pytest.mark.usefixtures("model")
def test_raw_text_goes_into_pipes_as_it_is_and_to_no_terminal(tgc: Tgc, monkeypatch: pytest.MonkeyPatch):
    Path("escape.txt").write_text("\x1b[31m" * 120)
    tgc("train", *TINY_BIGRAM, "--data", "escape.txt", "--out", "runs/e")
    sample = ("sample", "--checkpoint", "runs/e", "--prompt", "\x1b[31m", "--seed", "1")
    code, raw, _ = tgc(*sample, "--raw")
    assert (code, raw[:5]) == (0, "\x1b[31m")
    assert tgc(*sample) == (0, raw.replace("\x1b", "\\x1b"), "")

    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Screen()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", screen)
        with escaped_streams():
            assert run([*sample, "--raw"]) == 2
    assert screen.getvalue() == ""
