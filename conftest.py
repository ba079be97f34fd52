"""What holds for every test, those of docstrings and of bench/ too: how many run at once, which, with which cache."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tinygrad_chat.files import CACHE_VARIABLE

PROFILES = ("dev", "ci", "deep")  # each looks harder than the one before


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Run the whole suite on all cores, and what somebody chose from it in this process, where a debugger can be."""
    chosen = config.args_source is pytest.Config.ArgsSource.ARGS or config.option.markexpr or config.option.keyword
    return 0 if chosen else os.cpu_count() or 1


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked for a profile that looks harder than the one in force."""
    name = config.getoption("--hypothesis-profile")
    effort = PROFILES.index(name) if name in PROFILES else 0
    for item in items:
        marker = item.get_closest_marker("profile")
        if marker is not None and PROFILES.index(marker.args[0]) > effort:
            item.add_marker(pytest.mark.skip(reason=f"takes long: --hypothesis-profile {marker.args[0]}"))


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of each test's own, and of the processes that it starts: the user's is never touched."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv(CACHE_VARIABLE, str(folder))
    return folder
