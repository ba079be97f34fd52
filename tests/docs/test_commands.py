"""Every command that the pages show is one that the real command lines take."""

from __future__ import annotations

import re
import shlex
import tomllib
from importlib.util import find_spec
from typing import Any

import pytest
import typer.main
from typer.core import TyperGroup

from bench.__main__ import make_parser
from tests.docs.pages import PAGES, ROOT, blocks, command_lines, name, read
from tinygrad_chat import errors
from tinygrad_chat.cli.app import CLOSED_PIPE, app
from tinygrad_chat.cli.help import GroupOfRuns
from tinygrad_chat.cli.interruption import SIGNALS

COMMANDS = sorted({(name(page), *command) for page in PAGES for command in command_lines(page)})
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
README = [block.text.strip().splitlines() for block in blocks(ROOT / "README.md") if not block.language]
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
WORKFLOW = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")


def test_there_are_commands():
    assert len(COMMANDS) > 50


@pytest.mark.parametrize(("page", "line", "whole"), COMMANDS, ids=str)
def test_a_command_that_is_shown_can_be_typed(page: str, line: str, whole: bool):
    for command in re.split(r" (?:&&|\|) ", line):
        words = shlex.split(command, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words.pop(0)
        words[0] = words[0].removeprefix(".venv/bin/")
        try:
            parse(words)
        except typer.TyperException as error:
            if whole or not error.format_message().startswith("Missing"):
                raise


def parse(words: list[str]) -> None:
    """Give a command to the parser of its program, or look for the files and extras that it names."""
    match words:
        case ["tgc", *rest]:
            parse_tgc(rest)
        case ["python", "-m", "bench", *rest]:
            make_parser().parse_args(rest)
        case ["python" | "python3", "-m", module, *rest]:
            assert find_spec(module)
            if module == "pytest":
                expect_files(rest)
        case ["python", script, *_]:
            assert (ROOT / script).exists()
        case ["pytest", *rest]:
            expect_files(rest)
        case ["pip", "install", "-e", target]:
            assert target == "." or set(target.removeprefix(".[").removesuffix("]").split(",")) <= EXTRAS.keys()


def parse_tgc(words: list[str]) -> None:
    """Parse a command and its options, without running it."""
    group: Any = typer.main.get_command(app)
    context = group.make_context("tgc", list(words), resilient_parsing=words[:1] in (["--version"], ["-V"]))
    if context.resilient_parsing:
        return
    assert words[0] in group.commands
    if {"--help", "-h", "--help-all"} & set(words):
        words = [word for word in words if word not in {"--help", "-h", "--help-all"}]
    _, command, _ = group.resolve_command(context, words[:1])
    inner = command.make_context(words[0], words[1:], parent=context)
    named = isinstance(command, GroupOfRuns) and words[1:2] and words[1] not in command.commands
    if isinstance(command, TyperGroup) and not named and words[1:] and not words[1].startswith("-"):
        name, command, rest = command.resolve_command(inner, words[1:])
        assert command is not None
        command.make_context(name, rest, parent=inner)


def expect_files(words: list[str]) -> None:
    """Look for the folders and files that pytest is to run."""
    for word in words:
        if "/" in word:
            assert (ROOT / word.split("::")[0]).exists()


WRONG = [
    "train --stepps 5",
    "train --steps many",
    "trian",
    "data lisst",
    "data show --nonsense",
    "chat --nonsense",
]


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_command_would_be_found(line: str):
    with pytest.raises((typer.TyperException, AssertionError)):
        parse_tgc(line.split())


def test_a_wrong_measurement_would_be_found(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        make_parser().parse_args(["stepp"])
    assert "stepp" in capsys.readouterr().err


def test_the_readme_begins_with_clone_install_and_chat_then_train_and_sample():
    clone, install, chat = README[0]
    assert clone.startswith("git clone ")
    assert install == "python3 -m venv .venv && .venv/bin/pip install -e ."
    assert chat == ".venv/bin/tgc chat"
    train, sample = README[1]
    assert (train, sample.split()[:2]) == (".venv/bin/tgc train", [".venv/bin/tgc", "sample"])


def test_ci_runs_the_readmes_commands_exactly_as_they_are_printed():
    assert README[2] == [".venv/bin/pip install -e '.[test]' && .venv/bin/pytest --hypothesis-profile ci"]
    shown = [README[0][1], *README[1], *README[2]]  # what needs nobody at a terminal, as `tgc chat` does
    assert [line for line in CI if line in shown] == shown
    assert "- run: bash .ci/run" in WORKFLOW


def test_the_table_of_exit_codes_has_all_of_them():
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.TinygradChatError)
    ]
    ours = {kind.exit_code for kind in kinds} - {1}  # 1 is a fault of a program, not of its call
    table = read(ROOT / "docs" / "runs.md").partition("## Exit codes")[2]
    shown = {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    assert shown == {0, *ours, CLOSED_PIPE, *(128 + number for number in SIGNALS)}
