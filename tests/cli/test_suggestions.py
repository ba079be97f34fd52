"""What a command suggests can be pasted into a shell, whatever the names in it are: it means them and runs nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import TINY_BIGRAM, Tgc
from tinygrad_chat.formatting import as_command

OWNED = "a;touch${IFS}OWNED"  # as the name of a folder: pasted without quotes, it runs
NANOCHAT = (
    *("--model", "nanochat", "--depth", "1", "--width", "32", "--heads", "2", "--context", "8", "--steps", "1"),
    *("--batch-size", "2", "--eval-tokens", "9", "--tokenizer", "bytes", "--kernels", "numpy"),
)
BEFORE = (  # what stands before a suggestion; a path alone is tried as an option's
    r"(?:resume with|continue training with|train one with|train one there with|sample from it with|fine-tune it with"
    r"|tracker|as in|such as|did you mean|is part of|^ ):? (.+?)(?:\?|; give that path instead)?$"
)
SUGGESTING = [
    ("train", *TINY_BIGRAM, "--data", OWNED, "--out", OWNED),
    ("train", *TINY_BIGRAM, "--data", OWNED, "--out", f"runs/{OWNED}"),
    ("train", "--resume", "--out", f"runs/{OWNED}"),
    ("train", *TINY_BIGRAM, "--data", OWNED, "--out", "runs"),
    ("train", *TINY_BIGRAM, "--data", OWNED, "--out", f"all {OWNED}"),
    ("runs", f"all {OWNED}"),
    ("report", f"all {OWNED}"),
    ("sample", "--checkpoint", f"none {OWNED}"),
    ("sample", "--checkpoint", f"runs/{OWNED}x"),
    ("sample", "--checkpoint", f"runs/{OWNED}/samples"),
    ("runs", f"runs/{OWNED}/samples"),
    ("import", "n.safetensors", "--out", f"imported {OWNED}"),
]


@pytest.mark.profile("ci")
@pytest.mark.skipif(os.name != "posix", reason="a Unix shell")
def test_what_is_suggested_can_be_pasted(tgc: Tgc):
    Path(OWNED).mkdir()
    Path(OWNED, "a.txt").write_text("abc " * 99)
    assert tgc("train", *NANOCHAT, "--data", OWNED, "--out", "n")[0] == 0
    assert tgc("export", "nanochat", "n", "n.safetensors")[0] == 0
    shutil.copytree("n", f"all {OWNED}/{OWNED}")
    Path(f"all {OWNED}/{OWNED}/outcome.json").unlink()  # as if it had been killed
    Path(f"none {OWNED}").mkdir()
    suggestions: list[str] = []
    for arguments in SUGGESTING:
        _, out, err = tgc(*arguments)
        found = re.findall(BEFORE, out + err, re.MULTILINE)
        assert found, (arguments, out, err)
        suggestions += [f"tgc {each}" if each.startswith("-") else each for each in found]
    report = Path(f"runs/{OWNED}/report.md").read_text(encoding="utf-8")
    suggestions += re.findall("```sh\n(.*?)\n```", report)
    pasted = [each if each.startswith("tgc ") else f"tgc {each}" for each in suggestions]
    script = "\n".join(['tgc() { echo "$*"; }', *pasted])
    shell = subprocess.run(["bash", "-e", "-c", script], capture_output=True, text=True, check=True)
    assert shell.stderr == ""
    meant = shell.stdout.splitlines()
    assert len(meant) == len(pasted) > len(SUGGESTING)
    assert [words for words in meant if OWNED not in words and "runs/" not in words] == []
    assert not Path("OWNED").exists()


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("C:\\runs\\a-1", "C:\\runs\\a-1"),
        ("a&calc", '"a&calc"'),
        ("my runs\\", '"my runs\\\\"'),
        ('a"|b', '"a\\"|b"'),
        ("", '""'),
    ],
)
def test_a_word_for_windows_is_one_word_there(monkeypatch: pytest.MonkeyPatch, name: str, word: str):
    monkeypatch.setattr(sys, "platform", "win32")
    assert as_command(["tgc", name]) == f"tgc {word}"
