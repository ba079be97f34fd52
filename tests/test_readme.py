"""The README says what is so: its commands, its Python and the code that it shows."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

import tinygrad_chat
from tinygrad_chat.cli.app import run

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [block.strip() for language, block in BLOCKS if not language]


def test_ci_runs_exactly_the_second_command():
    assert COMMANDS[1].endswith("pytest --hypothesis-profile ci")
    assert (ROOT / ".ci" / "run").read_text(encoding="utf-8").rstrip().splitlines()[-1] == COMMANDS[1]


def test_the_first_command_trains():
    assert COMMANDS[0].endswith("tgc train")


def test_python_that_runs_prints_what_it_should(capsys: pytest.CaptureFixture[str]):
    exec(next(block for language, block in BLOCKS if language == "python" and "import" in block), {})
    a, b = map(float, capsys.readouterr().out.split())
    slope = 1 - math.tanh(4.0) ** 2
    assert (a, b) == pytest.approx((-3 * slope, 2 * slope))


def test_the_op_that_is_shown_is_the_op_that_runs():
    shown = next(block for language, block in BLOCKS if language == "python" and "@differentiable" in block)
    source = (Path(tinygrad_chat.__file__).parent / "ops" / "softmax.py").read_text(encoding="utf-8")
    for line in shown.splitlines():
        if not line.startswith("def softmax"):  # shown without its types
            assert line in source


@pytest.mark.parametrize("command", re.findall(r"^tgc (\w+ .*?) +#", README, re.MULTILINE))
def test_every_option_that_is_shown_exists(command: str, capsys: pytest.CaptureFixture[str]):
    name, *options = command.split()
    run([name, "--help-all"])
    text = capsys.readouterr().out
    assert run([name, "--help"]) == 0
    text += capsys.readouterr().out
    for option in options:
        if option.startswith("--"):
            assert option in text


def test_every_link_leads_to_a_file():
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if not target.startswith(("http", "../../actions")):
                assert (page.parent / target).exists(), f"{page.name}: {target}"
