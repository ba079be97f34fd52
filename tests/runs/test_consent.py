"""What a user has agreed to holds for one run, one matter and one machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinygrad_chat.files import CACHE_VARIABLE
from tinygrad_chat.runs.consent import has_consent, note_consent


def test_consent_is_for_one_run_and_one_matter_on_one_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert not has_consent(tmp_path / "run", "a tracker")
    note_consent(tmp_path / "run", "a tracker")
    monkeypatch.chdir(tmp_path)
    assert has_consent(Path("run"), "a tracker")
    assert not has_consent(tmp_path / "run", "another tracker")
    assert not has_consent(tmp_path / "another run", "a tracker")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "another machine"))
    assert not has_consent(tmp_path / "run", "a tracker")


def test_nothing_of_it_stands_in_the_run(tmp_path: Path):
    (tmp_path / "run").mkdir()
    note_consent(tmp_path / "run", "a tracker")
    assert list((tmp_path / "run").iterdir()) == []
