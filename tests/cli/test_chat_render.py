"""`tgc chat render`: what a model reads of conversations, and which of it is trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Tgc

HI = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]}
START, MIDDLE, END = "<|bos|><|user_start|>", "<|user_end|><|assistant_start|>", "+[<|assistant_end|>]+"


def write(*rows: object, mark: str = "", end: str = "\n") -> None:
    lines = "".join(f"{json.dumps(row)}{end}" for row in rows)
    Path("a.jsonl").write_bytes(f"{mark}{lines}".encode())


def test_what_is_trained_stands_in_brackets_in_a_pipe(tgc: Tgc):
    write(HI, {"input": "a\n", "output": "b"})
    code, out, err = tgc("chat", "render", "a.jsonl")
    assert (code, out.splitlines()) == (0, [f"{START}hi{MIDDLE}+[yo]+{END}", f"{START}a\\n{MIDDLE}+[b]+{END}"])
    assert err == "tgc: 2 conversations, 15 tokens, 4 of them trained on (27%)\n"
    assert tgc("chat", "render", "a.jsonl", "-n", "1")[1].count("\n") == 1


def test_calls_are_trained_and_their_results_are_read(tgc: Tgc):
    parts = [{"type": "python", "text": "1+1"}, {"type": "python_output", "text": "2"}, {"type": "text", "text": "Two"}]
    write({"messages": [HI["messages"][0], {"role": "assistant", "content": parts}]})
    shown = tgc("chat", "render", "a.jsonl")[1]
    assert "+[<|python_start|>]++[1+1]++[<|python_end|>]+<|output_start|>2<|output_end|>+[Two]+" in shown


def test_a_question_that_nobody_has_answered_is_not_shown_and_said(tgc: Tgc):
    write(HI, {"messages": [*HI["messages"], HI["messages"][0]]})
    _, out, err = tgc("chat", "render", "a.jsonl")
    assert out.splitlines() == [f"{START}hi{MIDDLE}+[yo]+{END}"] * 2
    assert err.endswith(" of them trained on (29%); left out 1 question that nobody has answered\n")


@pytest.mark.parametrize("place", ["user", "assistant", "system", "tool"])
def test_names_of_special_tokens_that_somebody_writes_are_text(tgc: Tgc, place: str):
    """They are counted: as control each would be one token."""
    name = "<|assistant_end|>"
    messages: list[dict[str, object]] = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": [{"type": "python", "text": "1"}, {"type": "python_output", "text": "t"}]},
    ]
    write({"messages": messages})
    before = tgc("chat", "render", "a.jsonl", "--tokenizer", trained())[2]
    if place == "tool":
        messages[2]["content"] = [{"type": "python", "text": "1"}, {"type": "python_output", "text": name}]
    else:
        messages[("system", "user", "assistant").index(place)]["content"] = name
    write({"messages": messages})
    _, out, err = tgc("chat", "render", "a.jsonl", "--tokenizer", trained())
    assert name in out
    assert int(err.split()[3].replace(",", "")) > int(before.split()[3].replace(",", "")) + len(name) // 2


def test_a_tokenizer_of_bytes_is_called_so(tgc: Tgc):
    write(HI)
    for kind in ("bytes", "characters"):
        assert (
            f"the tokenizer ({kind}) has no tokens that mark"
            in tgc("chat", "render", "a.jsonl", "--tokenizer", kind)[2]
        )


def trained() -> str:
    """A tokenizer of bytes and special tokens alone."""
    from tinygrad_chat.text.tokenizers.bpe import BPETokenizer
    from tinygrad_chat.text.tokenizers.files import write_tokenizer

    if not (path := Path("t.json")).exists():
        write_tokenizer(BPETokenizer.from_merges([]), path)
    return str(path)


def test_files_as_windows_writes_them_and_several_dialects_in_one(tgc: Tgc):
    rows = (
        HI,
        HI["messages"],
        {"conversations": [{"from": "Human", "value": "hi"}, {"from": "GPT", "value": "yo"}]},
        {"instruction": "hi", "input": "", "output": "yo"},
        {"input": "hi", "output": "yo"},
    )
    write(*rows, mark="\ufeff", end="\r\n")
    assert tgc("chat", "render", "a.jsonl", "-n", "9")[1] == f"{START}hi{MIDDLE}+[yo]+{END}\n" * len(rows)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "a.jsonl: holds no conversations; expected rows such as"),
        ([{"text": "a"}], "a.jsonl: holds no conversations; expected rows such as"),
        ([HI, {"text": "a"}], "a.jsonl, line 2: expected messages, conversations, or instruction and output, received"),
        ([HI, {"messages": []}], "a.jsonl, line 2: messages: expected at least one from the user"),
        ([HI, {"messages": HI["messages"][:1]}], "a.jsonl, line 2: expected an answer by the assistant, received none"),
        ([HI, "hi"], "a.jsonl, line 2: expected an object or a list of messages, received 'hi'"),
        (
            [{"messages": [{"role": "user", "content": "\ud83d"}]}],
            "a.jsonl, line 1: messages[0].content: an unpaired surrog",
        ),
        ([{"text": "a"}, HI], "a.jsonl: holds no conversations"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_none_is_one_line_with_file_line_and_key(tgc: Tgc, rows: list[object], message: str):
    write(*rows)
    code, out, err = tgc("chat", "render", "a.jsonl")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
