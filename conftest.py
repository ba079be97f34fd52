"""What holds for every test, those of docstrings and of bench/ too."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinygrad_chat.files import CACHE_VARIABLE


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of each test's own, and of the processes that it starts: the user's is never touched."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv(CACHE_VARIABLE, str(folder))
    return folder
